//! The command; see the README of the crate.

fn main() {
    for case in sessionkit_conformance::registry() {
        println!("{} {}", case.id(), case.sentence());
    }
}
