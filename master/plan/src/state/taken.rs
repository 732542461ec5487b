//! What instances ask for, added up so that taking one away again is exact.

use plat_model::resources::Resources;

/// Sums of what is asked for, in the units of [`Resources`]. Wide enough never to saturate: what was added can be taken
/// away again without a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Taken {
    cpu_millis: u64,
    memory_mib: u64,
    disk_mib: u64,
    processes: u64,
}

impl Taken {
    pub(crate) fn add(&mut self, asked: Resources) {
        for (sum, asked) in self.pairs(asked) {
            *sum += asked;
        }
    }

    pub(crate) fn take_away(&mut self, asked: Resources) {
        for (sum, asked) in self.pairs(asked) {
            *sum = sum.saturating_sub(asked);
        }
    }

    fn pairs(&mut self, asked: Resources) -> [(&mut u64, u64); 4] {
        let wide = |amount: Option<u32>| amount.map_or(0, u64::from);
        [
            (&mut self.cpu_millis, wide(asked.cpu_millis)),
            (&mut self.memory_mib, wide(asked.memory_mib)),
            (&mut self.disk_mib, wide(asked.disk_mib)),
            (&mut self.processes, wide(asked.processes)),
        ]
    }

    /// What is left of `capacity`; never below zero, and unknown where the capacity is.
    pub fn left_of(&self, capacity: Resources) -> Resources {
        let left = |have: Option<u32>, sum: u64| {
            have.map(|have| u32::try_from(u64::from(have).saturating_sub(sum)).unwrap_or(u32::MAX))
        };
        Resources {
            cpu_millis: left(capacity.cpu_millis, self.cpu_millis),
            memory_mib: left(capacity.memory_mib, self.memory_mib),
            disk_mib: left(capacity.disk_mib, self.disk_mib),
            processes: left(capacity.processes, self.processes),
        }
    }

    /// Whether nothing is asked for.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}
