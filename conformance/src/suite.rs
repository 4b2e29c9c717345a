use std::{
    env::{self, VarError},
    io::{self, Write},
    time::Duration,
};

use crate::{
    Case, MakeHarness, Options, Verdict, Waivers, find_case, report::Level, run_case,
    runner::Explained,
};

/// The variable that sets the seed of a suite.
const SEED: &str = "SESSIONKIT_CONFORMANCE_SEED";
/// The variable that sets after how many seconds without the end of a call a case is given up.
const WATCHDOG: &str = "SESSIONKIT_CONFORMANCE_WATCHDOG";
/// The variable that leaves out the cases above a level.
const LEVEL: &str = "SESSIONKIT_CONFORMANCE_LEVEL";

/// Runs one case of a suite as a test.
///
/// # Panics
/// When the verdict is neither a pass nor a skip, and when a variable has no valid value.
#[doc(hidden)]
pub fn run_suite_test(name: &str, package: &str, target: &str, make: &MakeHarness, waivers: &str) {
    let case = find_case(name).expect("the registry has every case of the suite");
    let settings = Settings::from_env().unwrap_or_else(|error| panic!("{error}"));
    if !settings.level.includes(case.group) {
        let level = settings.level.name();
        return show(
            case,
            "skip",
            &format!("it is above the level {level}, which {LEVEL} sets"),
        );
    }
    let seed = settings.options.seed;
    let mut report = run_case(case, make, &settings.options);
    let waivers = Waivers::parse(waivers).expect("the waivers can be read");
    waivers.apply(package, std::slice::from_mut(&mut report));
    match &report.verdict {
        Verdict::Pass => {}
        verdict @ (Verdict::Skip(_) | Verdict::Waived { .. }) => {
            show(case, verdict.word(), &verdict.reason());
        }
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

/// Says why a test passes that has proved nothing. The test runner holds back what the macros print
/// in a test that passes, but not what is written to the stream itself.
fn show(case: &Case, word: &str, reason: &str) {
    let line = format!("{} {word}: {reason}\n", case.id());
    // A closed stream is no fault of the store.
    let _ = io::stderr().write_all(line.as_bytes());
}

/// What the environment says about the run.
struct Settings {
    options: Options,
    level: Level,
}

impl Settings {
    fn from_env() -> Result<Self, String> {
        let mut options = Options::default();
        if let Some(seed) = variable(SEED)? {
            options.seed = seed
                .parse()
                .map_err(|_| format!("{SEED} is a number from 0 to {}, not {seed:?}", u64::MAX))?;
        }
        if let Some(seconds) = variable(WATCHDOG)? {
            let number = seconds.parse().ok().filter(|seconds| *seconds > 0);
            let number = number.ok_or_else(|| {
                format!("{WATCHDOG} is a number of seconds from 1 on, not {seconds:?}")
            })?;
            options.watchdog = Duration::from_secs(number);
        }
        let level = match variable(LEVEL)? {
            None => Level::Secure,
            Some(name) => Level::named(&name).ok_or_else(|| {
                format!("{LEVEL} is core, concurrent, faults or secure, not {name:?}")
            })?,
        };
        Ok(Self { options, level })
    }
}

fn variable(name: &str) -> Result<Option<String>, String> {
    match env::var(name) {
        Ok(value) => Ok(Some(value)),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(format!("{name} is no text")),
    }
}

/// Makes one test of every case: the argument is an expression of a
/// [`Harness`](crate::Harness), evaluated once for each test, in async code.
///
/// The tests are named after the cases (`l01_create_then_load_is_equal`), so that `cargo test` and
/// `cargo nextest` can filter them. Those that do not apply to the store pass, and say why on the
/// standard error of the test run, one line each, whether or not output is captured.
///
/// Three variables of the environment change a run; a value that means nothing fails every test:
///
/// | variable | what it sets | by default |
/// |---|---|---|
/// | `SESSIONKIT_CONFORMANCE_SEED` | the seed of the random choices, a number | 1 |
/// | `SESSIONKIT_CONFORMANCE_WATCHDOG` | the seconds after which a case is given up in which no call has ended, at least 1 | 60 |
/// | `SESSIONKIT_CONFORMANCE_LEVEL` | the highest [`Level`](crate::report::Level) whose cases run: `core`, `concurrent`, `faults` or `secure`; groups that belong to no level always do | `secure` |
///
/// A second argument, `waivers = include_str!("waivers.txt")`, names failures that are known; see
/// [`Waivers`](crate::Waivers).
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
        $crate::suite!($harness, waivers = "");
    };
    ($harness:expr, waivers = $waivers:expr $(,)?) => {
        const CONFORMANCE_WAIVERS: &str = $waivers;

        fn conformance_harness() -> $crate::MakeHarness {
            ::std::sync::Arc::new(|| {
                ::std::boxed::Box::pin(async {
                    let harness: ::std::sync::Arc<dyn $crate::Harness> =
                        ::std::sync::Arc::new($harness);
                    ::std::result::Result::Ok(harness)
                })
            })
        }

        $crate::__suite_names!($crate::__suite_tests);
    };
}

/// One test for each of the names.
#[doc(hidden)]
#[macro_export]
macro_rules! __suite_tests {
    ($($case:ident)*) => {$(
        #[test]
        fn $case() {
            $crate::run_suite_test(
                stringify!($case),
                env!("CARGO_PKG_NAME"),
                env!("CARGO_CRATE_NAME"),
                &conformance_harness(),
                CONFORMANCE_WAIVERS,
            );
        }
    )*};
}

/// Hands the names of all cases to a macro. A test of the kit compares them with the registry.
#[doc(hidden)]
#[macro_export]
macro_rules! __suite_names {
    ($($then:tt)+) => {
        $($then)+! {
            l01_create_then_load_is_equal
            l02_load_of_an_unknown_token_is_none_and_stores_nothing
            l03_update_replaces_the_whole_record
            l04_load_after_delete_is_none_on_every_handle
            l05_update_and_touch_of_an_unknown_token_are_missing
            l06_create_over_a_live_record_is_exists
            l08_an_empty_record_is_a_record
            l09_every_handle_sees_what_another_one_wrote
            l10_opening_a_namespace_again_changes_nothing
            l11_delete_says_whether_it_ended_a_live_record
            l12_delete_at_a_revision_ends_no_other
            l13_ping_of_a_backend_that_works_is_ok
            l40_a_deleted_record_leaves_no_copy
            l50_a_call_on_an_unreadable_value_does_what_it_says_or_nothing
            l51_calls_without_a_record_leave_no_trace
            l52_an_expired_record_can_follow_an_old_one
            l53_a_delete_takes_away_what_has_expired
            f01_typed_values_survive
            f02_every_byte_survives
            f03_texts_in_every_script_survive
            f04_data_of_every_size_come_back_whole
            f05_the_metacharacters_of_backends_survive
            f07_an_unreadable_value_is_corrupt_and_can_be_deleted
            f08_records_of_released_formats_load
            f09_random_calls_answer_as_the_model_does
            f40_each_call_keeps_or_replaces_every_field
            f41_revisions_that_differ_in_one_bit_are_two
            f42_a_load_changes_nothing_of_what_is_stored
            k01_tokens_that_differ_in_letter_case_are_two_sessions
            k02_padding_does_not_lead_to_a_session
            k03_a_token_that_begins_another_is_independent
            k04_hostile_tokens_reach_nothing
            k05_tokens_are_unique_and_evenly_distributed
            k06_without_randomness_there_is_no_token
            k07_every_token_finds_its_own_record
            k08_long_and_short_tokens_are_keys_like_any_other
            k09_tokens_with_one_id_name_one_record
            k10_tokens_that_differ_in_the_id_are_two_sessions
            k40_keys_that_begin_or_end_alike_are_two_sessions
            k50_every_call_goes_by_the_key_alone
            t01_a_record_is_gone_from_its_expiry_on
            t02_a_record_is_there_until_its_expiry
            t03_a_record_that_has_expired_already_is_accepted_and_not_visible
            t04_an_update_keeps_an_expiry_that_it_does_not_change
            t05_a_new_expiry_counts_whether_later_or_earlier
            t06_touch_prolongs_what_lives_and_revives_nothing
            t07_no_touch_passes_the_absolute_lifetime
            t08_a_lifetime_of_a_quarter_second_is_neither_an_error_nor_endless
            t09_far_expiries_survive
            t11_time_zones_do_not_matter
            t12_one_clock_decides_also_when_it_steps
            t13_an_expired_record_that_was_not_swept_is_absent
            t40_instants_from_2286_to_9999_are_kept_and_compared
            t41_a_clock_that_is_set_back_brings_nothing_back_and_ends_nothing
            t60_no_call_goes_by_a_time_zone
            c01_of_many_creates_of_one_token_one_succeeds
            c02_of_many_updates_of_one_revision_one_succeeds
            c03_no_increment_is_lost
            c04_no_reader_sees_half_of_a_write
            c05_an_update_does_not_bring_a_deleted_record_back
            c09_a_revision_is_not_met_again
            c10_a_sweep_spares_what_is_prolonged_in_time
            c11_what_was_deleted_is_not_loaded_by_anybody
            c12_random_histories_are_linearizable
            c13_64_tasks_share_a_handle
            c14_a_touch_does_not_bring_a_deleted_record_back
            c15_of_many_deletes_of_one_record_one_is_true
            c16_an_update_and_a_delete_at_one_revision_do_not_both_succeed
            c40_of_two_creates_at_any_step_one_succeeds
            c41_of_two_updates_at_any_step_one_succeeds
            c42_an_update_and_a_delete_at_any_step_are_one_after_the_other
            c43_of_two_deletes_at_any_step_one_is_true
            c44_a_touch_at_any_step_of_a_write_keeps_it
            c45_a_touch_at_any_step_of_an_end_brings_nothing_back
            c46_a_create_at_any_step_of_an_end_is_before_or_after_it
            c47_a_process_that_opens_and_closes_disturbs_nobody
            c48_of_two_revocations_at_any_step_one_counts
            c49_a_revocation_at_any_step_of_a_write_ends_the_session
            c50_revoke_all_at_any_step_of_a_write_ends_what_was_there
            c51_a_revocation_at_any_step_of_a_sign_in_goes_by_the_subject
            c52_the_session_that_is_excepted_survives_its_renewal
            c53_a_sweep_at_any_step_of_a_create_spares_the_new_record
            c54_a_sweep_at_any_step_of_a_prolongation_spares_the_record
            c55_a_sweep_at_any_step_of_a_revocation_leaves_both_right
            c56_a_list_at_any_step_of_a_renewal_shows_the_session_once
            c57_a_list_at_any_step_of_an_end_shows_the_others
            x01_a_dropped_call_has_taken_effect_or_not
            x02_the_next_call_gets_its_own_answer
            x03_a_dropped_call_leaves_the_index_right
            x04_dropped_calls_leave_nothing_behind
            x05_a_dropped_update_is_not_repeated_unseen
            x40_a_dropped_call_keeps_no_lock_on_its_key
            x60_a_dropped_call_of_any_kind_is_whole_or_not_made
            i01_two_namespaces_know_nothing_of_each_other
            i02_namespaces_with_similar_names_do_not_leak
            i03_strangers_in_the_backend_are_left_alone
            i60_long_namespaces_are_apart_to_the_last_byte
            i50_no_call_reaches_into_another_namespace
            b01_too_large_is_refused_and_changes_nothing
            b02_lengths_in_stored_values_are_not_believed
            b03_a_hostile_namespace_is_refused_or_a_namespace
            b04_a_sweep_keeps_to_its_limit
            e01_a_backend_that_is_down_is_an_error_never_none
            e02_opening_without_a_backend_is_an_error_in_time
            e03_after_a_crash_the_same_handle_works_and_nothing_acknowledged_is_lost
            e04_every_call_ends_when_the_server_hangs
            e05_a_lost_answer_is_ambiguous_and_not_repeated_blindly
            e06_a_slow_network_changes_no_answer
            e07_a_closed_connection_is_replaced_without_an_error
            e08_a_full_backend_refuses_and_keeps_what_it_has
            e09_a_read_only_backend_refuses_writes_and_answers_reads
            e10_a_busy_backend_is_no_conflict
            e12_ping_tells_whether_the_backend_answers
            e13_a_sweep_ends_when_the_server_hangs
            e14_calls_of_the_index_end_when_the_server_hangs
            e60_a_call_whose_answer_alone_is_lost_says_nothing_false
            e61_revoking_whose_answer_alone_is_lost_says_nothing_false
            e62_a_full_backend_lies_about_no_call
            e63_a_full_backend_revokes_or_says_that_it_does_not
            e40_a_renewal_fails_as_an_update_does
            e41_a_handle_that_is_dropped_while_the_backend_fails_loses_nothing
            e42_a_store_says_the_same_of_itself_while_the_backend_fails
            e43_opening_ends_when_the_server_hangs
            s01_a_copy_of_the_backend_opens_no_session
            s02_what_an_application_stores_is_not_readable_in_the_backend
            s03_a_value_copied_to_another_session_is_refused
            s04_no_secret_is_shown_or_logged
            s05_hostile_texts_are_only_texts
            s07_a_removed_key_opens_no_session
            s40_what_a_store_refuses_or_cannot_read_is_not_quoted
            s41_lists_revocations_and_sweeps_show_no_secret
            s42_lost_and_late_answers_show_no_secret
            w01_a_sweep_removes_what_has_expired_and_nothing_else
            w02_sweeps_at_the_same_time_share_the_work
            w04_a_sweep_steps_over_what_it_cannot_read
            w05_a_backend_that_sweeps_by_itself_does_it
            w06_a_store_without_a_sweep_refuses_it
            w07_try_sweep_sweeps_or_leaves_it_to_another
            w40_a_sweep_that_fails_says_so
            w41_a_sweep_counts_every_record_once_whatever_became_of_it
            n01_a_list_has_the_live_sessions_and_opens_none
            n02_paging_shows_what_stays_exactly_once
            n03_the_index_follows_every_write
            n04_revoking_ends_what_it_names_and_nothing_else
            n05_revoking_everything_is_not_outrun
            n06_a_store_without_an_index_keeps_the_subject
            n07_revoking_everything_ends_while_the_subject_signs_in
            n40_an_index_that_cannot_be_asked_is_an_error_never_empty
            n41_subjects_that_look_alike_are_different_people
            n42_a_page_begins_behind_its_position_whatever_became_of_it
            n43_hundreds_of_sessions_are_all_listed_and_all_ended
            n44_revoking_looks_at_the_sessions_as_they_are_now
            n45_the_index_forgets_what_was_before
            n46_an_unreadable_record_stands_in_nobodys_way
            r01_a_renewal_keeps_the_session_and_makes_the_old_cookie_dead
            r02_a_late_request_gets_no_cookie_for_thirty_seconds
            r03_a_change_beside_a_renewal_is_refused_and_reported
            r04_a_change_beside_a_routine_rotation_is_kept
            r05_of_parallel_renewals_one_wins
            r06_a_sign_out_beside_a_renewal_ends_the_session
            r07_a_sign_out_beside_changes_ends_the_session
            r08_revoking_beside_renewals_ends_the_sessions
            r09_of_two_clicks_on_a_login_one_session_is_left
            r10_no_count_of_parallel_requests_is_lost
            r11_a_dropped_renewal_leaves_the_session_before_or_after_it
            y01_a_token_that_was_changed_is_none
            y02_what_was_never_sealed_is_none
            y03_a_token_is_worthless_elsewhere
            y04_the_expiry_is_inside_the_seal
            y05_the_newest_key_seals_and_a_removed_one_opens_nothing
            y06_a_cookie_that_no_browser_takes_is_an_error
            y07_no_two_seals_are_alike
            y08_what_a_client_keeps_cannot_be_taken_back_unseen
            y09_weak_keys_are_refused_and_bad_tokens_look_alike
            y60_a_delete_is_refused_whatever_the_token_is
            y61_a_store_knows_the_tokens_that_it_has_made
            m01_the_kit_catches_a_store_that_is_broken_on_purpose
            m02_a_store_is_what_it_declares
            m03_a_destroyed_namespace_is_empty
        }
    };
}
