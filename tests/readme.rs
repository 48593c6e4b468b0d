//! The README says what the example does.

#[test]
fn the_quick_start_of_the_readme_is_the_example() {
    let (readme, example) = (include_str!("../README.md"), include_str!("../examples/quickstart/both_sides.rs"));
    assert!(
        readme.contains(&format!("```rust\n{example}```\n")),
        "README.md and examples/quickstart/both_sides.rs differ"
    );
}
