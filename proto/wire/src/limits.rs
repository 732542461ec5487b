//! Limits that both ends keep: sizes, deadlines, page sizes, and how many of a thing one message may hold.

use std::time::Duration;

/// Largest message in bytes, either way.
pub const MAX_MESSAGE: usize = 8 * 1024 * 1024;
/// How much of a list in bytes travels in one message; the rest comes with the next. Any single item fits in what is
/// left: a release document is at most 1 MiB, an instance's parameters at most 256 KiB.
pub const LIST_BYTES: usize = MAX_MESSAGE / 2;
/// Largest status details in bytes, before base64: they travel in a header, and headers are bounded.
pub const MAX_STATUS_DETAILS: usize = 24 * 1024;
/// Largest list of headers in bytes that both ends accept. Holds the details above in base64, and the rest.
pub const MAX_HEADERS: u32 = 64 * 1024;

/// How long a caller waits for an ordinary call.
pub const CALL_DEADLINE: Duration = Duration::from_secs(30);
/// How long an agent waits for `Sync` and `PushUsage`, which carry the most.
pub const SYNC_DEADLINE: Duration = Duration::from_secs(60);
/// How long a caller waits for `Enroll`, `Renew` and `Login`.
pub const IDENTITY_DEADLINE: Duration = Duration::from_secs(15);

/// Page size of a list when the caller asks for 0.
pub const PAGE_DEFAULT: u32 = 500;
/// Largest page size; a larger one asked for is taken as this.
pub const PAGE_MAX: u32 = 1000;
/// Log lines when the caller asks for 0.
pub const LOG_LINES_DEFAULT: u32 = 100;
/// Most log lines at once; more asked for is taken as this.
pub const LOG_LINES_MAX: u32 = 10_000;
/// Longest log line in bytes.
pub const LOG_LINE_MAX: usize = 8 * 1024;

/// Most problems in one message.
pub const PROBLEMS_MAX: usize = 100;
/// Longest text in bytes of one field of a problem: room for the last lines of a build's log.
pub const PROBLEM_TEXT_MAX: usize = 16 * 1024;
/// Longest text in bytes that people read in a status: a detail, a message, a progress, how a process ended.
pub const TEXT_MAX: usize = 2 * 1024;
/// Most instances, and most held instances, in one report.
pub const INSTANCES_MAX: usize = plat_model::node::PARTITIONS_MAX;
/// Most releases in one message.
pub const RELEASES_MAX: usize = 10_000;
/// Most services, and most promises, of one instance.
pub const SERVICES_MAX: usize = 256;
/// Most addresses of one partition.
pub const ADDRESSES_MAX: usize = 64;
/// Most labels of a node or a placement rule.
pub const LABELS_MAX: usize = 64;
/// Longest label key or value in bytes: a node's labels are no longer.
pub const LABEL_TEXT_MAX: usize = 63;
/// Most usage reports in one `PushUsage`.
pub const USAGE_REPORTS_MAX: usize = 256;
/// Most records in one usage report: one for each partition.
pub const USAGE_RECORDS_MAX: usize = plat_model::node::PARTITIONS_MAX;
/// Most amounts in one usage record.
pub const AMOUNTS_MAX: usize = 32;

/// The size of a message, in bytes.
pub fn bytes_of(message: &impl prost::Message) -> usize {
    message.encoded_len()
}

/// How many items of a list, from the first, travel in one message: what fits in [`LIST_BYTES`], and at least one.
pub fn fitting<'a, M: prost::Message + 'a>(items: impl IntoIterator<Item = &'a M>) -> usize {
    let mut room = LIST_BYTES;
    let mut fits = |n: usize, bytes: usize| {
        let fits = n == 0 || bytes <= room;
        room = room.saturating_sub(bytes);
        fits
    };
    items.into_iter().enumerate().take_while(|(n, item)| fits(*n, bytes_of(*item))).count()
}

/// The page size that serves a request for `asked`.
pub fn page_size(asked: u32) -> usize {
    (if asked == 0 { PAGE_DEFAULT } else { asked.min(PAGE_MAX) }) as usize
}

/// The number of log lines that serves a request for `asked`.
pub fn log_lines(asked: u32) -> u32 {
    if asked == 0 { LOG_LINES_DEFAULT } else { asked.min(LOG_LINES_MAX) }
}

/// How long the call `/plat.v1.Service/Method` may take; `None` for a stream, which has no end of its own.
pub fn deadline(path: &str) -> Option<Duration> {
    match path.rsplit('/').next().unwrap_or_default() {
        "Watch" | "PushLogs" | "WatchInstance" | "WatchGrid" | "Logs" | "ReleaseLog" | "ExportLedger" => None,
        "Sync" | "PushUsage" => Some(SYNC_DEADLINE),
        "Enroll" | "Renew" | "Login" => Some(IDENTITY_DEADLINE),
        _ => Some(CALL_DEADLINE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;

    #[test]
    fn exactly_the_streams_have_no_deadline() {
        let set = prost_types::FileDescriptorSet::decode(crate::FILE_DESCRIPTOR_SET).unwrap();
        for service in set.file.iter().flat_map(|file| &file.service) {
            for method in &service.method {
                let path = format!("/plat.v1.{}/{}", service.name(), method.name());
                let stream = method.client_streaming() || method.server_streaming();
                assert_eq!(deadline(&path).is_none(), stream, "{path}");
            }
        }
    }

    #[test]
    fn a_list_goes_as_far_as_there_is_room_and_is_never_stuck() {
        let body = |kib: usize| crate::v1::ReleaseBody { digest: String::new(), document: "x".repeat(kib * 1024) };
        assert_eq!(fitting(&[body(5000), body(1)]), 1);
        assert_eq!(fitting(&[body(1), body(5000), body(1)]), 1);
        assert_eq!(fitting(&vec![body(1000); 9]), 4);
        assert_eq!(fitting::<crate::v1::ReleaseBody>(&[]), 0);
    }

    #[test]
    fn a_page_is_never_empty_and_never_too_large() {
        assert_eq!([page_size(0), page_size(7), page_size(u32::MAX)], [500, 7, 1000]);
    }
}
