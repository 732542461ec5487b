//! How an agent's units are called, and found again.

use plat_model::id::{PartitionName, ServiceName};
use sha2::Digest as _;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Where the machine's own agent keeps the host's part of its state. Its slices are those that node-format writes.
const MACHINE: &str = "/var/lib/plat/agent/host";

/// Where folders of partitions are mounted for systemd to mount them from. It is beneath nothing that units find emptied: to empty
/// a folder systemd takes away what is mounted in it, and reads the list of all mounts anew after each.
pub const TMP: &str = "/var/lib/plat-tmp";

/// The names of one agent's units: another agent of the same machine, with another state, has others.
#[derive(Debug, Clone)]
pub struct Names {
    prefix: String,
}

impl Names {
    pub fn of(state: &Path) -> Self {
        if state == Path::new(MACHINE) {
            return Self { prefix: "plat".into() };
        }
        let hash = sha2::Sha256::digest(state.as_os_str().as_encoded_bytes());
        let id: String = hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        Self { prefix: format!("plat-{id}") }
    }

    /// What all of its services' names match, as systemd compares names.
    pub fn all_services(&self) -> String {
        format!("{}-*.service", self.prefix)
    }

    /// The same of one partition.
    pub fn services_of(&self, partition: &PartitionName) -> String {
        // A backslash would escape the next character of the pattern.
        format!("{}-{}-*.service", self.prefix, escape(partition.as_str()).replace('\\', "\\\\"))
    }

    pub fn slice(&self, partition: &PartitionName) -> String {
        format!("{}-{}.slice", self.prefix, escape(partition.as_str()))
    }

    /// The slice that all partitions' slices are in.
    pub fn base(&self) -> String {
        format!("{}.slice", self.prefix)
    }

    /// The folder of the slice's control group, beneath the root of systemd's.
    pub fn group(&self, partition: &PartitionName) -> PathBuf {
        let own = if self.prefix == "plat" { PathBuf::new() } else { self.base().into() };
        Path::new("plat.slice").join(own).join(self.slice(partition))
    }

    /// What is this agent's of [`TMP`]: a folder for each partition.
    pub fn tmp(&self) -> PathBuf {
        self.beneath(TMP)
    }

    /// This agent's part of a folder that several share.
    pub fn beneath(&self, folder: &str) -> PathBuf {
        Path::new(folder).join(&self.prefix)
    }

    pub fn service(&self, partition: &PartitionName, service: &ServiceName) -> String {
        format!("{}-{}-{}.service", self.prefix, escape(partition.as_str()), escape(service.as_str()))
    }

    /// One run of a program: no service's name has a dot.
    pub fn program(&self, partition: &PartitionName, name: &str, run: &str) -> String {
        format!("{}-{}-{}.{run}.service", self.prefix, escape(partition.as_str()), escape(name))
    }

    /// Which partition's it is by its name, of a service or a program; its slice must be the partition's too, or it is
    /// somebody else's.
    pub fn partition_of(&self, unit: &str) -> Option<PartitionName> {
        let (partition, _) = self.parts(unit)?;
        PartitionName::parse(&unescape(partition)?).ok()
    }

    /// Which service it is; `None` if it is none of this agent's.
    pub fn parse(&self, unit: &str) -> Option<(PartitionName, ServiceName)> {
        let (partition, service) = self.parts(unit)?;
        Some((PartitionName::parse(&unescape(partition)?).ok()?, ServiceName::parse(&unescape(service)?).ok()?))
    }

    /// Neither `plat-agent.service` nor another agent's `plat-ID-PARTITION-SERVICE.service` has two parts after the prefix.
    fn parts<'a>(&self, unit: &'a str) -> Option<(&'a str, &'a str)> {
        let middle = unit.strip_prefix(&self.prefix)?.strip_prefix('-')?.strip_suffix(".service")?;
        middle.split_once('-').filter(|(_, rest)| !rest.contains('-'))
    }
}

/// As `systemd-escape` does it.
fn escape(name: &str) -> String {
    let mut escaped = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => escaped.push(char::from(byte)),
            _ => drop(write!(escaped, "\\x{byte:02x}")),
        }
    }
    escaped
}

fn unescape(text: &str) -> Option<String> {
    decode(text, "\\x")
}

/// The unit that a D-Bus path is of.
pub fn of_path(path: &str) -> Option<String> {
    decode(path.strip_prefix("/org/freedesktop/systemd1/unit/")?, "_")
}

/// A text in which `mark` comes before the two hexadecimal digits of a byte.
fn decode(text: &str, mark: &str) -> Option<String> {
    let mut parts = text.split(mark);
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend(&part.as_bytes()[2..]);
    }
    String::from_utf8(bytes).ok()
}

/// The D-Bus path of a unit.
pub fn path_of(unit: &str) -> String {
    let mut path = "/org/freedesktop/systemd1/unit/".to_owned();
    for byte in unit.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => path.push(char::from(byte)),
            _ => drop(write!(path, "_{byte:02x}")),
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(state: &str) -> (Names, PartitionName, ServiceName) {
        let (partition, service) = (PartitionName::parse("lab-a0"), ServiceName::parse("web-ui"));
        (Names::of(Path::new(state)), partition.unwrap(), service.unwrap())
    }

    #[test]
    fn the_machines_agent_uses_the_slices_that_node_format_writes() {
        let (names, partition, service) = names(MACHINE);
        assert_eq!(names.slice(&partition), "plat-lab\\x2da0.slice");
        assert_eq!(names.group(&partition), Path::new("plat.slice/plat-lab\\x2da0.slice"));
        assert_eq!(names.service(&partition, &service), "plat-lab\\x2da0-web\\x2dui.service");
    }

    #[test]
    fn a_service_is_found_by_its_unit_and_nothing_else_is_taken_for_one() {
        let (names, partition, service) = names("/srv/state");
        let unit = names.service(&partition, &service);
        assert_eq!(names.parse(&unit), Some((partition.clone(), service)));
        assert_eq!(of_path(&path_of(&unit)), Some(unit.clone()));
        assert!(names.parse(&names.program(&partition, "init", "17ab")).is_none());
        assert!(Names::of(Path::new("/srv/other")).partition_of(&unit).is_none());
        // The machine's agent has the shortest prefix.
        let machine = Names::of(Path::new(MACHINE));
        assert!(
            [&unit, "plat-agent.service", "plat-master.service"]
                .iter()
                .all(|unit| machine.partition_of(unit).is_none())
        );
        assert_eq!(names.partition_of(&names.program(&partition, "init", "17ab")), Some(partition.clone()));
        assert_eq!(names.group(&partition).components().count(), 3);
    }
}
