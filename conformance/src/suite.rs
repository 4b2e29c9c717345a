use std::env;

use crate::{MakeHarness, Options, Verdict, find_case, run_case, runner::Explained};

/// The variable that sets the seed of a suite.
const SEED: &str = "SESSIONKIT_CONFORMANCE_SEED";

/// Runs one case of a suite as a test.
///
/// # Panics
/// When the verdict is neither a pass nor a skip.
#[doc(hidden)]
pub fn run_suite_test(name: &str, package: &str, target: &str, make: &MakeHarness) {
    let case = find_case(name).expect("the registry has every case of the suite");
    let mut options = Options::default();
    if let Ok(seed) = env::var(SEED) {
        options.seed = seed.parse().expect("the seed is a number");
    }
    let seed = options.seed;
    let report = run_case(case, make, &options);
    match &report.verdict {
        Verdict::Pass => {}
        Verdict::Skip(reason) => eprintln!("{} skip: {reason}", case.id()),
        verdict => {
            let again = format!("{SEED}={seed} cargo test -p {package} --test {target} {name}");
            let again = &again;
            panic!(
                "\n{}\n",
                Explained {
                    case,
                    verdict,
                    seed,
                    again
                }
            );
        }
    }
}

/// Makes one test of every case: the argument is an expression of a
/// [`Harness`](crate::Harness), evaluated once for each test, in async code.
///
/// The tests are named after the cases (`l01_create_then_load_is_equal`), so that `cargo test` and
/// `cargo nextest` can filter them. Those that do not apply to the store pass and say why with
/// `--nocapture`. The variable `SESSIONKIT_CONFORMANCE_SEED` sets the seed, which is 1 by default.
///
/// ```
/// use sessionkit_conformance::MemoryHarness;
///
/// sessionkit_conformance::suite!(MemoryHarness::new());
/// # fn main() {}
/// ```
#[macro_export]
macro_rules! suite {
    ($harness:expr $(,)?) => {
        fn conformance_harness() -> $crate::MakeHarness {
            ::std::sync::Arc::new(|| {
                ::std::boxed::Box::pin(async {
                    let harness: ::std::sync::Arc<dyn $crate::Harness> =
                        ::std::sync::Arc::new($harness);
                    ::std::result::Result::Ok(harness)
                })
            })
        }

        $crate::__suite_tests!();
    };
}

/// The tests of [`suite!`]; a test of the kit compares them with the registry.
#[doc(hidden)]
#[macro_export]
macro_rules! __suite_tests {
    () => {
        $crate::__suite_tests! {
            l01_create_then_load_is_equal
            l02_load_of_an_unknown_token_is_none_and_stores_nothing
            l03_update_replaces_the_whole_record
            l04_load_after_delete_is_none_on_every_handle
            l05_update_touch_and_rotate_of_an_unknown_token_are_missing
            l06_create_over_a_live_record_is_exists
            l07_rotate_moves_the_record
        }
    };
    ($($case:ident)*) => {$(
        #[test]
        fn $case() {
            $crate::run_suite_test(
                stringify!($case),
                env!("CARGO_PKG_NAME"),
                env!("CARGO_CRATE_NAME"),
                &conformance_harness(),
            );
        }
    )*};
}
