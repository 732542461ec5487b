//! Two directories of one partition on one file system have one limit; on another file system is another.

use super::mounted::Mounted;
use super::{MIB, PROJECT};
use crate::host::linux::directories::Tree;
use crate::host::linux::disk;
use crate::host::linux::quota::calls;
use indexmap::IndexMap;
use node_format_plan::{Action, HostFacts};
use std::fs;
use std::path::Path;

fn action(path: &str, file_system: &str, from: Option<u32>, to: Option<u32>) -> Action {
    Action::SetDiskLimit { path: path.into(), id: PROJECT, file_system: Some(file_system.into()), from, to }
}

pub fn lives(mounted: &Mounted) {
    let mut tree = Tree::open(&mounted.top()).unwrap();
    let look = |path: &str| {
        let mut facts = HostFacts::default();
        let tree = Tree::open(&mounted.top()).unwrap();
        disk::observe(&tree, &IndexMap::from([(path.into(), PROJECT)]), &mut facts);
        facts
    };
    fs::create_dir_all(mounted.top().join("one")).unwrap();
    fs::create_dir_all(mounted.top().join("two")).unwrap();
    mounted.set("one", None).unwrap();
    let here = look("/one").file_systems[Path::new("/one")].clone();
    disk::perform(&mut tree, &action("/one", &here, None, Some(8))).unwrap();
    // What is not there yet would have the limit, and does not count.
    for path in ["/two", "/two/not-yet"] {
        let seen = look(path);
        assert_eq!((seen.disk_limits[Path::new(path)], &seen.file_systems[Path::new(path)]), (8, &here));
        assert!(seen.uncounted.contains(Path::new(path)));
    }
    assert!(look("/two").projects.is_empty());
    // Of whatever project it was.
    let own = std::fs::File::open(mounted.top().join("two")).unwrap().into();
    let mut attributes = calls::attributes(&own).unwrap();
    attributes.project = PROJECT + 1;
    calls::set_attributes(&own, &attributes).unwrap();
    assert_eq!(look("/two").projects[Path::new("/two")], PROJECT + 1);
    disk::perform(&mut tree, &action("/two", &here, Some(8), Some(8))).unwrap();
    assert!(look("/two").uncounted.is_empty() && look("/two").projects.is_empty());
    // Elsewhere there is nothing of ours, and nothing is limited.
    for path in ["/two", "/gone"] {
        disk::perform(&mut tree, &action(path, "another", Some(8), None)).unwrap();
        assert_eq!(mounted.limit("one"), Some(8 * MIB));
    }
    let problem = disk::perform(&mut tree, &action("/two", "another", Some(8), Some(9))).unwrap_err();
    assert!(problem.why.contains("another file system"), "{problem}");
    assert_eq!(mounted.limit("one"), Some(8 * MIB));
    disk::perform(&mut tree, &action("/gone", &here, Some(8), None)).unwrap();
    assert_eq!(mounted.limit("one"), None);
}
