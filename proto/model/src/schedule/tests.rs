use super::*;
use proptest::prelude::*;

fn after(schedule: &str, at: &str) -> String {
    let schedule = Schedule::parse(schedule).unwrap_or_else(|why| panic!("{schedule}: {why}"));
    schedule.after(Timestamp::parse(at).unwrap()).map_or_else(String::new, |at| at.to_string())
}

#[test]
fn the_next_time_is_the_first_that_fits_all_fields() {
    for (schedule, at, next) in [
        ("* * * * *", "2026-11-22T07:15:00Z", "2026-11-22T07:16:00Z"),
        ("* * * * *", "2026-11-22T07:15:59.999Z", "2026-11-22T07:16:00Z"),
        ("30 2 * * *", "2026-11-22T02:29:59Z", "2026-11-22T02:30:00Z"),
        ("30 2 * * *", "2026-11-22T02:30:00Z", "2026-11-23T02:30:00Z"),
        ("*/20 9-17/4 * * *", "2026-11-22T09:41:00Z", "2026-11-22T13:00:00Z"),
        ("5,50 23 31 dec *", "2026-12-31T23:06:00Z", "2026-12-31T23:50:00Z"),
        ("5,50 23 31 dec *", "2026-12-31T23:50:00Z", "2027-12-31T23:05:00Z"),
        ("0 0 * * 7", "2026-11-22T00:00:00Z", "2026-11-29T00:00:00Z"),
        ("0 0 * * Mon-fri", "2026-11-20T00:00:00Z", "2026-11-23T00:00:00Z"),
        ("0 0 29 2 *", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"),
        ("0 0 29 2 *", "2096-03-01T00:00:00Z", "2104-02-29T00:00:00Z"),
        ("59 23 31 12 *", "9999-12-31T23:59:00Z", ""),
        ("@hourly", "2026-11-22T07:00:00Z", "2026-11-22T08:00:00Z"),
        ("@daily", "2026-11-22T07:00:00Z", "2026-11-23T00:00:00Z"),
        ("@weekly", "2026-11-22T07:00:00Z", "2026-11-29T00:00:00Z"),
        ("@monthly", "2026-11-22T07:00:00Z", "2026-12-01T00:00:00Z"),
        ("@yearly", "2026-11-22T07:00:00Z", "2027-01-01T00:00:00Z"),
    ] {
        assert_eq!(after(schedule, at), next, "{schedule} after {at}");
    }
}

#[test]
fn when_both_kinds_of_days_are_restricted_one_of_them_is_enough() {
    // The 13th is a Sunday.
    assert_eq!(after("0 0 13 * fri", "2026-12-05T00:00:00Z"), "2026-12-11T00:00:00Z");
    assert_eq!(after("0 0 13 * fri", "2026-12-11T00:00:00Z"), "2026-12-13T00:00:00Z");
    // With a star, also one with a step, both have to fit.
    assert_eq!(after("0 0 */12 * fri", "2026-12-05T00:00:00Z"), "2026-12-25T00:00:00Z");
    assert_eq!(after("0 0 13 * */5", "2026-12-05T00:00:00Z"), "2026-12-13T00:00:00Z");
}

#[test]
fn what_is_wrong_with_a_schedule_is_told_at_once_also_that_it_never_comes() {
    for (schedule, why) in [
        ("60 24 * 13 8", "minute `60`"),
        ("60 24 * 13 8", "day of the week `8`: its values are 0 to 7, or a name such as mon"),
        ("* * * *", "it has 4 fields"),
        ("* * * * * *", "it has 6 fields"),
        ("5/10 * * * *", "a step is one of `*` or of a range"),
        ("*/0 * * * *", "a step is a number from 1 on"),
        ("20-10 * * * *", "is empty"),
        ("1,,2 * * * *", "its values are 0 to 59"),
        ("+1 * * * *", "its values are 0 to 59"),
        ("@reboot", "short forms"),
        ("0 0 30 2 *", "no day of any year"),
        ("0 0 31 feb,apr,jun,sep,nov *", "no day of any year"),
        ("", "it has 0 fields"),
    ] {
        let told = Schedule::parse(schedule).unwrap_err();
        assert!(told.contains(why), "{schedule}: {told}");
    }
    assert!(Schedule::parse(&"0,".repeat(150)).unwrap_err().contains("longer"));
}

fn fields() -> impl Strategy<Value = String> {
    let one = |first: u32, last: u32| {
        prop_oneof![
            Just("*".to_owned()),
            (2..9_u32).prop_map(|step| format!("*/{step}")),
            (first..=last).prop_map(|value| value.to_string()),
            (first..=last, first..=last).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
            (first..=last, first..=last).prop_map(|(a, b)| format!("{a},{b}")),
        ]
    };
    (one(0, 59), one(0, 23), one(1, 31), one(1, 12), one(0, 7))
        .prop_map(|(a, b, c, d, e)| format!("{a} {b} {c} {d} {e}"))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_next_time_is_later_fits_and_leaves_none_out(text in fields(), at in 0..4_000_000_000_i64) {
        let Ok(schedule) = Schedule::parse(&text) else { return Ok(()) };
        let at = Timestamp::from_seconds(at);
        let next = schedule.after(at).unwrap();
        prop_assert!(next > at && next.seconds() % 60 == 0);
        // Whatever lies between has the same next time, so nothing was passed over.
        let between = Timestamp(at.0 + (next.0 - at.0) / 2);
        prop_assert_eq!(schedule.after(between), Some(next));
        prop_assert_eq!(schedule.after(Timestamp(next.0 - 1)), Some(next));
        let written: String = schedule.clone().into();
        prop_assert_eq!(Schedule::parse(&written), Ok(schedule));
    }

    #[test]
    fn no_text_makes_the_reader_fail_otherwise(text in "[0-9a-z*/,@ -]{0,40}") {
        let _ = Schedule::parse(&text);
    }
}
