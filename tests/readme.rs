//! The README says what the example does.

#[test]
fn the_quick_start_of_the_readme_is_the_example() {
    let (readme, example) = (include_str!("../README.md"), include_str!("../examples/quickstart/both_sides.rs"));
    assert!(
        readme.contains(&format!("```rust\n{example}```\n")),
        "README.md and examples/quickstart/both_sides.rs differ"
    );
}

#[test]
fn the_quick_start_in_c_is_the_program_that_is_tested() {
    let (readme, program) = (include_str!("../README.md"), include_str!("../ffi/tests/c/quickstart.c"));
    let (_, body) = program.split_once('\n').expect("the first line says what it is");
    assert!(readme.contains(&format!("```c\n{body}```\n")), "README.md and ffi/tests/c/quickstart.c differ");
}
