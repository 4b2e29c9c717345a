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
            l08_an_empty_record_is_a_record
            l09_every_handle_sees_what_another_one_wrote
            l10_opening_a_namespace_again_changes_nothing
            f02_every_byte_survives
            f03_texts_in_every_script_survive
            f04_data_of_every_size_come_back_whole
            f05_the_metacharacters_of_backends_survive
            f07_an_unreadable_value_is_corrupt_and_can_be_deleted
            f08_records_of_released_formats_load
            f09_random_calls_answer_as_the_model_does
            k01_tokens_that_differ_in_letter_case_are_two_sessions
            k02_padding_does_not_lead_to_a_session
            k03_a_token_that_begins_another_is_independent
            k04_hostile_tokens_reach_nothing
            k05_tokens_are_unique_and_evenly_distributed
            k06_without_randomness_there_is_no_token
            k07_every_token_finds_its_own_record
            k08_long_and_short_tokens_are_keys_like_any_other
            t01_a_record_is_gone_from_its_expiry_on
            t02_a_record_is_there_until_its_expiry
            t03_a_record_that_has_expired_already_is_accepted_and_not_visible
            t04_an_update_keeps_an_expiry_that_it_does_not_change
            t05_a_new_expiry_counts_whether_later_or_earlier
            t06_touch_prolongs_what_lives_and_revives_nothing
            t08_a_lifetime_of_a_quarter_second_is_neither_an_error_nor_endless
            t09_far_expiries_survive
            t11_time_zones_do_not_matter
            t12_one_clock_decides_also_when_it_steps
            t13_an_expired_record_that_was_not_swept_is_absent
            c01_of_many_creates_of_one_token_one_succeeds
            c02_of_many_updates_of_one_revision_one_succeeds
            c03_no_increment_is_lost
            c04_no_reader_sees_half_of_a_write
            c05_an_update_does_not_bring_a_deleted_record_back
            c06_touch_and_rotate_do_not_bring_a_deleted_record_back
            c07_of_two_rotations_one_succeeds
            c08_a_rotation_and_an_update_do_not_both_succeed
            c09_a_revision_is_not_met_again
            c10_a_sweep_spares_what_is_prolonged_in_time
            c11_what_was_deleted_is_not_loaded_by_anybody
            c13_64_tasks_share_a_handle
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
