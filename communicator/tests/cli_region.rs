//! `shmuring region create`: a region before anybody serves it.

mod support;

use shmuring::region::Region;
use std::os::unix::fs::PermissionsExt;
use support::Site;

/// Bytes of a region's header.
const HEADER: usize = size_of::<shmuring::layout::Header>();

#[test]
fn a_region_is_made_once_and_served_as_it_was_made() {
    let site = Site::new();
    let path = site.region().display().to_string();
    let create = |args: &[&str]| create(&site, args);
    let said = create(&["--slots", "48", "--bounce", "2"]).good();
    assert!(said.contains(&path) && said.contains("made") && said.contains("48 slots"), "{said}");
    let region = Region::attach(&site.region()).unwrap();
    assert_eq!((region.parts().slots.len(), region.parts().geometry.bounce_per_slot), (48, 2));
    assert_eq!(std::fs::metadata(site.region()).unwrap().permissions().mode() & 0o777, 0o600);

    create(&["--slots", "48"]).failed_as(5, &[&path, "there already", "--if-not-exists"]);
    let said = create(&["--if-not-exists"]).good();
    assert!(said.contains("there already") && said.contains("48 slots"), "{said}");
    create(&["--if-not-exists", "--slots", "49"]).failed(&[&path, "differs"]);
    assert_eq!(Region::attach(&site.region()).unwrap().id(), region.id(), "it is still the first one");
}

fn create(site: &Site, args: &[&str]) -> support::Said {
    let region = site.region().display().to_string();
    support::run(&[&["region", "create", "--region", &region], args].concat())
}

#[test]
fn what_is_no_region_is_not_overwritten() {
    let site = Site::new();
    std::fs::write(site.region(), "a letter").unwrap();
    create(&site, &[]).failed_as(5, &["there already"]);
    create(&site, &["--if-not-exists"]).failed(&[&site.region().display().to_string()]);
    assert_eq!(std::fs::read(site.region()).unwrap(), b"a letter");
    std::fs::remove_file(site.region()).unwrap();
    // A link to nowhere is there too.
    std::os::unix::fs::symlink(site.path("nowhere"), site.region()).unwrap();
    create(&site, &[]).failed_as(5, &["there already"]);
    let said = support::run(&["region", "create", "--region", "/no/such/directory/region"]);
    said.failed(&["/no/such/directory", "no such directory"]);
}

#[test]
fn of_many_that_create_at_once_one_makes_it() {
    let site = Site::new();
    let made = std::thread::scope(|scope| {
        let all: Vec<_> = (0..6).map(|_| scope.spawn(|| create(&site, &["--slots", "8"]))).collect();
        all.into_iter().map(|t| t.join().unwrap()).filter(|said| said.code == Some(0)).count()
    });
    assert_eq!(made, 1);
    let again = std::thread::scope(|scope| {
        let all: Vec<_> = (0..6).map(|_| scope.spawn(|| create(&site, &["--slots", "8", "--if-not-exists"]))).collect();
        all.into_iter().map(|t| t.join().unwrap()).all(|said| said.code == Some(0))
    });
    assert!(again);
}

#[test]
fn a_region_full_of_noise_is_shown_all_the_same() {
    let site = Site::new();
    create(&site, &["--slots", "16", "--bounce", "0", "--written", "0", "--rel-sizes", "8"]).good();
    let good = std::fs::read(site.region()).unwrap();
    let mut x = 1u64;
    for round in 0..8 {
        // What lies behind the header; all counters as large as can be in every other round.
        let noise = good.iter().skip(HEADER).map(|_| {
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            if round % 2 == 0 {
                0xFF
            } else {
                (x >> 56) as u8
            }
        });
        let bytes: Vec<u8> = good.iter().take(HEADER).copied().chain(noise).collect();
        std::fs::write(site.region(), bytes).unwrap();
        for args in [&["--json"][..], &["--slots"], &[]] {
            assert!(!site.run("stat", args).good().is_empty());
        }
    }
}
