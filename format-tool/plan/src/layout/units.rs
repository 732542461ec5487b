//! Slices of systemd: one for all partitions, with the capacity as its limits, and one in it for each.

use super::{Layout, ROOT, WantedFile};
use crate::action::Purpose;
use crate::settings::Settings;
use plat_model::node::NodePartition;
use plat_model::resources::Resources;
use std::fmt::Write;
use std::path::{Path, PathBuf};

const UNITS: &str = "/etc/systemd/system";

impl Layout {
    pub(super) fn place_units(&mut self, settings: &Settings, partitions: &[NodePartition]) {
        self.place_unit("plat.slice".into(), "All partitions of this node", &settings.capacity);
        for partition in partitions {
            let name = partition.name.as_str();
            self.place_unit(slice_of(name), &format!("Partition {name}"), &partition.limits);
        }
    }

    fn place_unit(&mut self, name: String, description: &str, limits: &Resources) {
        let mut text = format!("# Written by node-format.\n[Unit]\nDescription={description}\n\n[Slice]\n");
        if let Some(processes) = limits.processes {
            let _ = writeln!(text, "TasksMax={processes}");
        }
        if let Some(mib) = limits.memory_mib {
            let _ = writeln!(text, "MemoryMax={mib}M");
        }
        if let Some(millis) = limits.cpu_millis {
            // Of one core; systemd takes whole percents.
            let _ = writeln!(text, "CPUQuota={}%", millis.div_ceil(10).max(1));
        }
        let file = WantedFile { purpose: Purpose::Unit, owner: Some(ROOT), mode: 0o644, text };
        self.files.insert(PathBuf::from(UNITS).join(name), file);
        let above: Vec<&Path> = Path::new(UNITS).ancestors().filter(|path| path.parent().is_some()).collect();
        for above in above.into_iter().rev() {
            let directory = super::WantedDirectory { owner: Some(ROOT), mode: 0o755, partition: None };
            self.directories.entry(above.to_path_buf()).or_insert(directory);
        }
    }
}

/// The slice of a partition, within `plat.slice`: a dash in a slice's name stands for its parent, so those in the
/// partition's are written otherwise.
fn slice_of(partition: &str) -> String {
    format!("plat-{}.slice", partition.replace('-', "\\x2d"))
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_dash_in_a_name_makes_no_slice_between() {
        assert_eq!(super::slice_of("lab-a0"), "plat-lab\\x2da0.slice");
    }
}
