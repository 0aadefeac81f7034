//! The suite that both stores run: one file a noun, one function a promise. A case gets a fresh namespace.

pub mod acting;
pub mod begin_push;
pub mod blobs;
pub mod callback;
pub mod changes;
pub mod checkpoint;
pub mod children;
pub mod claim;
pub mod complete;
pub mod deadline;
pub mod delay;
pub mod dependencies;
pub mod function;
pub mod gates;
pub mod gather;
pub mod given;
pub mod ingest;
pub mod insert;
pub mod inspect;
pub mod lanes;
pub mod nested;
pub mod operate;
pub mod page;
pub mod push;
pub mod race;
pub mod refuse;
pub mod renew;
pub mod request;
pub mod rewind;
pub mod schema;
pub mod seed;
pub mod sleep;
pub mod strand;
pub mod token;
pub mod tolerance;
pub mod versions;
pub mod wake;
pub mod watchers;
pub mod why;

use std::{future::Future, sync::Arc, time::Duration};

use crate::Db;

/// No case takes longer, on however slow a machine: what does hangs.
const CASE_MAX: Duration = Duration::from_secs(90);

/// Runs one case; all but those about the schema find it migrated.
pub async fn run<F: Future<Output = ()>>(db: Arc<dyn Db>, noun: &str, case: impl FnOnce(Arc<dyn Db>) -> F) {
    let run = async {
        if noun != "schema" {
            db.store().migrate().await.unwrap();
        }
        case(db).await;
    };
    assert!(tokio::time::timeout(CASE_MAX, run).await.is_ok(), "not over after {CASE_MAX:?}");
}

/// Makes a test of every case. `make_db` is an async function where the macro stands that returns
/// `Arc<dyn Db>`.
#[macro_export]
macro_rules! conformance {
    ($make_db:ident) => {
        $crate::conformance_cases! { $make_db;
            schema: migrate_twice migrate_by_several_at_once missing_is_named older_is_named
                newer_is_refused_and_untouched a_migration_from_version_1_keeps_everything a_migration_that_waits_holds_up_nobody;
            insert: partition_defaults item_defaults a_json_literal_arrives_as_bytes
                an_idle_partition_wakes a_complete_partition_reopens paused_and_failed_partitions_store_and_sleep
                a_delayed_item_sets_the_alarm what_is_no_work_wakes_nothing a_deleted_partition_takes_its_items
                a_change_by_hand_wakes an_item_changed_by_hand_wakes
                an_old_snapshot_loses_no_wakeup;
            refuse: bad_partitions_are_refused half_a_lease_is_refused bad_items_are_refused
                bad_values_of_its_own_are_refused a_missing_partition_is_refused text_that_is_not_utf8_is_refused
                a_cancelled_partition_is_refused names_do_not_change an_old_snapshot_does_not_pass_a_cancellation;
            function: push_makes_what_is_missing seal_lets_go retry_makes_failed_items_available
                operators_act rewind_goes_back
                the_schema_is_all_one_has_to_name;
            push: makes_the_partition leaves_what_exists no_items_make_an_empty_partition
                reopens_a_complete_partition bad_input_is_refused a_cancelled_partition_is_told many_at_once;
            begin_push: nothing_is_visible_before_the_commit dropped_it_leaves_nothing
                several_parts_count_as_one an_error_leaves_nothing a_bad_partition_is_refused
                items_of_another_partition_are_refused its_partition_stays_awake
                dropped_it_lets_its_partition_close other_partitions_go_on;
            delay: a_delayed_item_waits a_mixed_push past_moments_are_due the_year_9999_is_fine
                absurd_years_are_refused children_may_be_delayed;
            claim: by_priority_and_age a_limit_takes_the_foremost feeds_are_separate a_limit_of_zero_claims_none only_what_nobody_took
                idle_future_and_ended_ones_are_left a_grant_is_complete leased_ones_are_left
                expired_ones_are_taken_over expired_and_free_ones_compete_by_priority
                a_limit_is_for_both_kinds by_priority_over_all_feeds
                concurrent_claims_are_disjoint an_open_producer_blocks_nobody;
            renew: extends_and_keeps_the_version an_expired_lease_that_nobody_took_is_renewed
                a_stolen_lease_is_lost every_part_of_the_fence_counts the_status_does_not_matter
                a_locked_row_is_skipped observe_sees_the_row_as_it_is a_released_partition_is_claimable_at_once
                progressed_counts_for_the_current_lease_only;
            page: in_order without_gaps_or_repeats in_the_order_of_a_model only_what_is_due an_item_is_whole
                large_data_is_loaded_apart
                much_large_data_is_asked_for_at_once binary_data_is_kept none_without_a_current_lease
                a_limit_of_zero_reads_none several_partitions_at_once
                a_late_commit_is_found_from_the_beginning;
            complete: every_field_is_written none_leaves_it empty_is_not_none the_second_of_a_version_is_stale
                twice_in_a_batch_is_once a_late_waiting_write_loses each_part_of_the_fence_counts
                fenced_after_a_steal_and_after_a_release an_expired_lease_that_nobody_took_may_write
                a_paused_partition_takes_outcomes a_mixed_batch a_former_lease_in_the_same_batch_is_fenced
                a_locked_partition_is_busy an_outcome_queues_for_a_lock another_lock_is_told a_thousand_at_once begin_suspect_counts
                bad_input_is_data an_attempt_that_was_given_up_does_not_count;
            children: children_arrive_whole a_missing_partition_is_made existing_ids_are_left_alone
                a_complete_partition_reopens paused_and_failed_partitions_sleep_on
                a_refused_child_writes_nothing;
            dependencies: blocked_until_all_are_complete a_complete_dependency_blocks_nobody an_item_takes_its_parents_output
                a_failed_dependency_fails_skips_or_runs what_could_never_come_free_is_refused lower_gates_may_be_depended_on
                plain_sql_blocks_and_comes_free plain_sql_is_refused_too an_item_under_way_takes_no_dependency
                two_inserts_cannot_close_a_cycle children_depend_on_what_they_name a_refused_dependency_writes_nothing
                a_dependency_that_moves_past_stops a_retry_waits_again a_retry_alone_fails_again
                existing_items_keep_their_dependencies many_dependents_come_free_in_pieces many_dependents_fail_in_pieces many_dependents_come_free_under_a_short_lease large_copies_come_free_in_pieces dependents_of_something_large_come_free_at_once
                a_checkpoint_finds_what_came_free a_fenced_outcome_unblocks_nothing
                a_deleted_partition_takes_its_dependencies a_deleted_item_takes_its_dependencies nothing_stays_blocked;
            gather: a_due_item_says_what_it_gathers what_ended_at_a_gate_is_gathered pages_are_bounded
                bad_gathers_are_refused a_missing_partition_is_named;
            checkpoint: sparse_gates_are_one_step an_open_item_holds_the_gate
                a_late_item_delays_the_next_checkpoint_only the_last_gate_closes stop_fails
                stop_delivers_what_it_can a_failure_ahead_does_not_count_yet continue_goes_on_and_closes
                a_held_gate_sleeps without_auto_close_it_stays_open fenced several_at_once
                an_open_producer_keeps_it_awake an_open_producer_does_not_hold_up_an_advance
                a_locked_row_is_busy;
            sleep: waiting_and_blocked_items_hold_the_gate an_empty_partition_stays_open delayed_items a_wait_ends
                no_longer_available_ones_are_released a_sleeper_wakes_by_itself;
            wake: a_plain_insert_wakes a_push_wakes children_wake a_retry_wakes next_is_cancel_safe;
            changes: a_waiter_wakes_when_it_closes a_waiter_wakes_when_it_fails every_waiter_wakes;
            watchers: a_report_is_listed targets_that_are_left_alone_are_listed
                peers_are_those_who_are_alive_and_serve_the_same a_second_report_replaces_the_first watchers_and_feeds_sum_up
                farewell_takes_a_watcher_away a_silent_watcher_does_not_count an_old_report_is_forgotten
                what_others_hold_is_asked_for nothing_is_asked_for_in_vain;
            operate: retry_reopens_a_failed_partition retry_by_gate_and_item retry_reopens_a_complete_partition
                retry_leaves_a_paused_partition_paused retry_while_leased retry_names_what_is_wrong
                seal_lets_go seal_while_leased advance_goes_to_the_next_open_gate advance_while_leased
                advance_is_refused_with_a_reason;
            acting: pause_sets_aside pause_while_leased pause_is_refused_with_a_reason resume_goes_on
                resume_is_refused_with_a_reason cancel_ends_it cancel_while_leased cancel_twice_is_once
                cancel_beside_an_open_producer cancel_of_paused_and_failed_ones cancel_wakes_waiters
                an_action_is_for_a_version of_two_for_a_version_one_acts;
            tolerance: a_count_is_put_up_with beyond_a_count_it_fails a_share_is_put_up_with
                beyond_a_share_it_fails stop_has_a_reason a_share_is_of_what_came_to_the_gate
                each_gate_counts_by_itself an_advance_by_hand_counts_too an_empty_gate_is_through;
            deadline: a_gate_that_takes_too_long_fails a_sleeper_wakes_at_its_deadline
                the_deadline_comes_before_a_later_item each_gate_has_its_own_time
                resume_starts_the_clock_again time_without_work_does_not_count
                a_deadline_may_be_set_later a_deadline_that_is_set_later_wakes
                what_is_pushed_for_later_has_a_deadline_too;
            versions: an_item_that_is_cancelled_in_flight_stays_so an_item_that_is_moved_in_flight_is_delivered_there
                new_data_in_flight_is_delivered an_upsert_in_flight_is_delivered
                each_change_of_an_item_is_a_version each_change_of_a_partition_is_a_version names_do_not_change
                a_change_says_when_it_was;
            rewind: items_are_as_they_came_to_the_gate what_it_came_with_counts_not_what_became_of_it
                the_last_coming_counts what_will_be_made_again_is_removed
                only_what_is_at_the_gate_or_beyond a_late_answer_is_fenced a_stale_answer_keeps_nothing
                failed_and_paused_ones it_is_refused_with_a_reason
                it_is_switched_on_before_the_first_item it_goes_with_its_partition to_an_empty_gate
                dependencies_are_waited_for_again;
            nested: why_names_parents_and_children an_item_waits_until_all_have_closed an_item_completes_with_what_it_waited_for
                an_item_fails_with_what_it_waited_for outcomes_apply_what_has_closed a_second_or_fenced_answer_makes_nothing
                an_id_that_is_taken_is_data partitions_nest_so_deep_and_no_deeper a_parent_that_nobody_woke_is_found
                a_locked_parent_is_woken_later a_deleted_one_counts_as_cancelled one_that_is_opened_again_does_not_matter
                a_paused_parent_goes_on_later a_cancellation_cancels_what_is_nested a_cancelled_one_has_closed
                a_rewind_cancels_what_was_nested_since dependents_go_on_when_it_completes many_dependents_of_what_waited_come_free closings_against_their_parent;
            ingest: many_partitions_at_once a_partition_of_another_feed_is_none an_item_arrives_whole existing_ids_are_told a_key_with_another_body_is_told
                a_bad_one_leaves_nothing what_it_does_not_take_is_refused the_same_ids_at_the_same_time
                watchers_hear_of_it a_backlog_is_counted;
            request: the_same_request_is_answered_as_it_was another_request_with_its_key_is_a_conflict
                a_single_item_with_its_key_is_a_conflict the_key_of_a_single_item_is_a_conflict
                a_partition_of_another_feed_is_none what_was_refused_is_not_kept of_many_at_once_one_is_done it_goes_with_its_partition
                old_ones_are_forgotten;
            token: tokens_are_listed a_revoked_one_stays ended_ones_are_forgotten_in_time;
            callback: a_key_is_made_once an_item_waits_as_it_is an_answer_that_comes_later it_may_come_before_the_item_waits
                once_is_all another_attempt_takes_no_earlier_token another_item_of_the_same_name
                an_item_that_waits_too_long what_is_changed_while_it_waits_goes_on_waiting
                what_is_ended_while_it_waits_takes_no_callback what_was_moved_while_it_waited_stays_there
                what_is_overdue_is_bounded_and_fenced a_sleeper_wakes_when_an_items_time_is_over
                a_heartbeat_extends what_was_extended_has_not_waited_for_too_long no_time_is_too_long children_and_partitions_come_with_it dependents_come_free
                what_is_refused_leaves_the_token_good failed_attempts_follow_the_ticket
                paused_partitions_take_it_and_failed_ones_do_not cancelled_and_rewound_ones_do_not
                a_retry_leaves_what_waits_alone what_it_replaces_is_kept a_locked_partition_is_told
                of_many_at_once_one_is_written callbacks_against_timeouts;
            inspect: partitions_are_filtered pages_of_odd_ids_have_no_gaps a_partition_counts_its_items
                items_are_filtered status_sums_up_feeds the_oldest_due_item_is_found
                what_cannot_be_delivered_is_not_the_oldest what_will_be_delivered_is_not_idle
                waiting_items_are_not_idle what_waits_for_people_is_idle what_is_waited_for_has_ended;
            gates: items_are_counted_by_gate_and_status finished_items_count_too an_empty_partition_has_none;
            lanes: actions_that_wait_hold_up_nobody_else slow_looks_hold_up_nobody_else locked_suspects_hold_up_nobody_else who_waits_for_a_partition_leaves_connections_to_the_others;
            why: what_holds_the_gate the_next_gate an_item the_watchers_of_its_feed looks_are_bounded;
            blobs: large_data_lies_in_the_blob_store every_way_in_is_one_out a_listing_shows_what_lies_there a_listing_shows_the_others_where_one_is_gone
                references_go_where_data_goes a_rewind_brings_references_back
                nested_partitions_are_put_around_a_blob what_is_gathered_is_fetched_in_pages
                without_the_blob_store_nothing_is_lost a_reference_from_outside_is_refused
                a_push_that_ends_early_leaves_garbage_only what_is_referred_to_is_kept
                each_database_collects_its_own links_are_signed
                a_bucket_that_is_not_there_loses_nothing a_blob_store_that_is_away_is_waited_for;
            race: no_stale_completion_after_a_steal outcomes_against_a_cancellation
                outcomes_against_a_rewind retries_against_outcomes eight_claimers
                callbacks_against_waiting;
            strand: no_insert_is_stranded no_insert_is_stranded_in_an_idle_partition;
        }
    };
}

/// Makes a test of every case about blobs, with those in a bucket ([`Bucket`](crate::bucket::Bucket)); without a server for
/// it each says so and passes.
#[macro_export]
macro_rules! bucket_conformance {
    ($make_db:ident) => {
        $crate::bucket_cases! { $make_db;
            large_data_lies_in_the_blob_store every_way_in_is_one_out a_listing_shows_what_lies_there
            a_listing_shows_the_others_where_one_is_gone references_go_where_data_goes a_rewind_brings_references_back
            nested_partitions_are_put_around_a_blob what_is_gathered_is_fetched_in_pages
            without_the_blob_store_nothing_is_lost a_reference_from_outside_is_refused
            a_push_that_ends_early_leaves_garbage_only what_is_referred_to_is_kept each_database_collects_its_own
            links_are_signed a_bucket_that_is_not_there_loses_nothing
        }
    };
}

/// The tests of [`bucket_conformance!`](crate::bucket_conformance!), from its list.
#[doc(hidden)]
#[macro_export]
macro_rules! bucket_cases {
    ($make_db:ident; $($case:ident)*) => {
        mod bucket {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let Some(bucket) = $crate::bucket::Bucket::make().await else { return };
                let db = $crate::bucket::WithBucket(super::$make_db().await, bucket);
                let db = std::sync::Arc::new(db);
                $crate::conformance::run(db, "blobs", $crate::conformance::blobs::$case).await;
            })*
        }
    };
}

/// The tests of [`conformance!`](crate::conformance!), from its list.
#[doc(hidden)]
#[macro_export]
macro_rules! conformance_cases {
    ($make_db:ident; $($noun:ident: $($case:ident)*;)*) => {
        mod conformance {
            $(mod $noun {
                $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let db = super::super::$make_db().await;
                    $crate::conformance::run(db, stringify!($noun), $crate::conformance::$noun::$case).await;
                })*
            })*
        }
    };
}

#[cfg(test)]
mod tests {
    /// A case that nobody runs proves nothing.
    #[test]
    fn every_case_is_in_the_list() {
        let list = include_str!("mod.rs").split("macro_rules! conformance {").nth(1).unwrap();
        let list = list.split("[doc(hidden)]").next().unwrap();
        let sources = [
            ("acting", include_str!("acting.rs")),
            ("deadline", include_str!("deadline.rs")),
            ("rewind", include_str!("rewind.rs")),
            ("tolerance", include_str!("tolerance.rs")),
            ("begin_push", include_str!("begin_push.rs")),
            ("blobs", include_str!("blobs.rs")),
            ("callback", include_str!("callback.rs")),
            ("changes", include_str!("changes.rs")),
            ("checkpoint", include_str!("checkpoint.rs")),
            ("children", include_str!("children.rs")),
            ("claim", include_str!("claim.rs")),
            ("complete", include_str!("complete.rs")),
            ("delay", include_str!("delay.rs")),
            ("dependencies", include_str!("dependencies.rs")),
            ("function", include_str!("function.rs")),
            ("gather", include_str!("gather.rs")),
            ("gates", include_str!("gates.rs")),
            ("ingest", include_str!("ingest.rs")),
            ("insert", include_str!("insert.rs")),
            ("inspect", include_str!("inspect.rs")),
            ("nested", include_str!("nested.rs")),
            ("operate", include_str!("operate.rs")),
            ("page", include_str!("page.rs")),
            ("push", include_str!("push.rs")),
            ("race", include_str!("race.rs")),
            ("renew", include_str!("renew.rs")),
            ("request", include_str!("request.rs")),
            ("schema", include_str!("schema.rs")),
            ("refuse", include_str!("refuse.rs")),
            ("sleep", include_str!("sleep.rs")),
            ("strand", include_str!("strand.rs")),
            ("token", include_str!("token.rs")),
            ("versions", include_str!("versions.rs")),
            ("wake", include_str!("wake.rs")),
            ("watchers", include_str!("watchers.rs")),
            ("why", include_str!("why.rs")),
        ];
        for (noun, source) in sources {
            let listed = list.split(&format!(" {noun}:")).nth(1).unwrap().split(';').next().unwrap();
            let listed: Vec<_> = listed.split_whitespace().collect();
            let cases = source.split("pub async fn ").skip(1).map(|rest| rest.split('(').next().unwrap());
            let missing: Vec<_> = cases.filter(|case| !listed.contains(case)).collect();
            assert!(missing.is_empty(), "{noun}: {missing:?}");
        }
    }
}
