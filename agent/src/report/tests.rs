use super::*;
use plat_model::Generation;
use plat_model::instance::InstanceState;
use plat_model::time::Timestamp;

const ROOM: usize = 1 << 20;

fn status(n: u32, detail: &str) -> InstanceStatus {
    let id = InstanceId::parse(&format!("{n:032x}")).unwrap();
    let bare = InstanceStatus::bare(id, Generation(1), InstanceState::Ready, Timestamp(1));
    InstanceStatus { detail: detail.into(), ..bare }
}

#[test]
fn what_has_no_room_in_one_report_comes_with_the_next() {
    let board = Board::default();
    for n in 0..5 {
        let long = plat_model::parameters::Parameters::parse_json(&format!(r#"{{"a": "{}"}}"#, "x".repeat(1000)));
        board.instance(InstanceStatus { connection: long.unwrap(), ..status(n, "") });
    }
    let mut reports = Vec::new();
    while let Some((report, mark)) = board.news(1000, 2500) {
        reports.push(report.instances.len());
        board.taken(mark, |_| true);
    }
    assert_eq!(reports, [2, 2, 1]);
}

#[test]
fn one_thing_is_told_even_if_it_has_no_room_and_no_more_than_asked_for() {
    let board = Board::default();
    (0..3).for_each(|n| board.instance(status(n, "")));
    assert_eq!(board.news(1000, 1).unwrap().0.instances.len(), 1);
    assert_eq!(board.news(2, ROOM).unwrap().0.instances.len(), 2);
    let (report, mark) = board.news(1000, ROOM).unwrap();
    assert_eq!(report.instances.len(), 3);
    board.taken(mark, |_| true);
    assert!(board.news(1000, ROOM).is_none());
}
