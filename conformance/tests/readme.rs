//! The tutorial in the README shows the code that passes, to the letter.

const README: &str = include_str!("../README.md");

#[test]
fn the_readme_shows_the_store_of_the_example() {
    let store = include_str!("../examples/redb_store/store.rs");
    assert!(README.contains(store), "copy the store into the README");
}

#[test]
fn the_readme_shows_the_test_of_the_example() {
    let test = include_str!("redb.rs");
    let (_, shown) = test
        .split_once("mod store;\n\n")
        .expect("the test has a store");
    assert!(README.contains(shown), "copy the test into the README");
}
