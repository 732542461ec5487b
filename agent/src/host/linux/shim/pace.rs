//! How fast a program's output is copied. Whoever copies it is not the program, so nobody pays for that work: what is too
//! much stays in the pipe, and the pipe holds the program back.

use std::time::{Duration, Instant};

/// Lines a second: what systemd's journal takes of a unit, 300,000 in half a minute.
const LINES: u32 = 10_000;
/// Bytes a second.
const BYTES: u32 = 4 << 20;
/// How much may come at once: as much as in so long a time.
const AHEAD: Duration = Duration::from_secs(10);
/// One call that reads less than this is followed by a short rest: a wakeup for each byte is work, too, and what comes
/// meanwhile waits in the pipe.
const LITTLE: usize = 4096;
const SHORT: Duration = Duration::from_millis(10);
/// Who is held back is not looked at more often than this.
const REST: Duration = Duration::from_millis(100);

/// What a program may still say. It knows no clock: it is told when something came.
#[derive(Debug)]
pub struct Pace {
    /// How long what has been copied takes at the rate above, less the time that has passed since.
    owed: Duration,
    at: Instant,
    /// Nothing is to be read until then.
    until: Option<Instant>,
}

impl Pace {
    pub fn new(now: Instant) -> Self {
        Self { owed: Duration::ZERO, at: now, until: None }
    }

    /// Counts what one call has read: at least a line, for each call is work too.
    pub fn count(&mut self, bytes: &[u8], now: Instant) {
        let lines = bytes.iter().filter(|byte| **byte == b'\n').count().max(1);
        let of = |count: usize, rate: u32| Duration::from_secs(1).mul_f64(count as f64 / f64::from(rate));
        self.owed = self.owed.saturating_sub(now.saturating_duration_since(self.at));
        self.owed += of(lines, LINES).max(of(bytes.len(), BYTES));
        self.at = now;
        let over = self.owed.saturating_sub(AHEAD);
        self.until = match over {
            Duration::ZERO if bytes.len() >= LITTLE => None,
            Duration::ZERO => now.checked_add(SHORT),
            over => now.checked_add(over + REST),
        };
    }

    /// How long nothing is to be read, if so.
    pub fn rest(&self, now: Instant) -> Option<Duration> {
        self.until.map(|until| until.saturating_duration_since(now)).filter(|rest| !rest.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &[u8] = b"a line of a log, as they are, of some length\n";

    /// Copies as fast as it may for so long; how many times.
    fn copied(pace: &mut Pace, now: &mut Instant, piece: &[u8], time: Duration) -> u64 {
        let (end, mut times) = (*now + time, 0);
        while *now < end {
            match pace.rest(*now) {
                Some(rest) => *now += rest,
                None => {
                    pace.count(piece, *now);
                    times += 1;
                }
            }
        }
        times
    }

    #[test]
    fn what_a_service_says_as_it_starts_is_not_held_back() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        // Some MB of plain lines, and many MB of long ones, all in one instant.
        pace.count(&LINE.repeat(99_000), now);
        assert_eq!(pace.rest(now), None);
        let mut pace = Pace::new(now);
        pace.count(&vec![b'x'; 39 << 20], now);
        assert_eq!(pace.rest(now), None);
    }

    #[test]
    fn a_flood_is_held_to_its_rate_whatever_it_is_made_of() {
        let (minute, begun) = (Duration::from_secs(60), Instant::now());
        let run = |piece: &[u8]| copied(&mut Pace::new(begun), &mut begun.clone(), piece, minute);
        // Ten seconds' worth at first, then a minute's, give or take one rest.
        let is_held = |times: u64, each_second: u64| (times * 10).abs_diff(700 * each_second) <= 10 * each_second;
        assert!(is_held(run(&[b'\n'; 1000]), 10), "lines, some at a time");
        assert!(is_held(run(&LINE.repeat(100)), 100), "lines, many at a time");
        assert!(is_held(run(&[b'x'; 1 << 16]), 64), "bytes without lines");
        // Whose work is the wakeups.
        assert!((5_900..=6_001).contains(&run(LINE)), "a line at a time");
        assert!((5_900..=6_001).contains(&run(b"x")), "a byte at a time");
    }

    #[test]
    fn who_is_held_back_is_looked_at_some_times_a_second_and_no_more() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        copied(&mut pace, &mut now, &[b'\n'; 5000], Duration::from_secs(1));
        let (end, mut rests) = (now + Duration::from_secs(10), 0);
        while now < end {
            match pace.rest(now) {
                Some(rest) => (now, rests) = (now + rest, rests + 1),
                None => pace.count(&[b'\n'; 5000], now),
            }
        }
        assert!((15..=25).contains(&rests), "{rests}");
    }

    #[test]
    fn who_was_quiet_for_a_while_may_say_much_again() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        pace.count(&LINE.repeat(101_000), now);
        assert!(pace.rest(now).is_some());
        now += Duration::from_secs(11);
        pace.count(&LINE.repeat(99_000), now);
        assert_eq!(pace.rest(now), None);
    }
}
