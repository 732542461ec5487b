//! Directories of an instance: kept, or emptied at each start.

use super::*;
use plat_document::release::VolumeKind;

fn prepare(names: &[(&str, VolumeKind)]) -> Action {
    let volumes = names.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect();
    Action::PrepareVolumes { partition: part(), volumes }
}

const BOTH: [(&str, VolumeKind); 2] = [("data", VolumeKind::Kept), ("work", VolumeKind::Scratch)];

#[tokio::test(flavor = "multi_thread")]
async fn scratch_is_emptied_whatever_was_left_there_and_what_is_kept_stays() {
    let node = Node::new(is_root().then(|| account(UID + 40)));
    let host = node.occupied().await;
    let outside = node.folder.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("victim"), "kept").unwrap();
    let volumes = node.home().join("volumes");
    host.perform(&prepare(&BOTH)).await.unwrap();
    let owner = fs::metadata(node.home()).unwrap().uid();
    let is_right = |name: &str| {
        let made = fs::symlink_metadata(volumes.join(name)).unwrap();
        assert_eq!((made.is_dir(), made.uid(), made.mode() & 0o7777), (true, owner, 0o700), "{name}");
    };
    for name in ["data", "work"] {
        is_right(name);
        fs::create_dir_all(volumes.join(name).join("a/b/c")).unwrap();
        fs::write(volumes.join(name).join("a/b/c/file"), "x").unwrap();
        symlink(&outside, volumes.join(name).join("a/link")).unwrap();
    }
    fs::set_permissions(volumes.join("work/a"), fs::Permissions::from_mode(0o000)).unwrap();
    fs::set_permissions(volumes.join("data"), fs::Permissions::from_mode(0o777)).unwrap();
    host.perform(&prepare(&BOTH)).await.unwrap();
    assert_eq!(fs::read_dir(volumes.join("work")).unwrap().count(), 0);
    assert_eq!(fs::read_to_string(volumes.join("data/a/b/c/file")).unwrap(), "x");
    ["data", "work"].into_iter().for_each(is_right);

    // In the place of a scratch one there may be anything.
    fs::remove_dir(volumes.join("work")).unwrap();
    symlink(&outside, volumes.join("work")).unwrap();
    host.perform(&prepare(&BOTH)).await.unwrap();
    is_right("work");
    fs::remove_dir(volumes.join("work")).unwrap();
    fs::write(volumes.join("work"), "a file").unwrap();
    host.perform(&prepare(&BOTH)).await.unwrap();
    is_right("work");

    // What is kept leads nowhere else.
    fs::rename(volumes.join("data"), volumes.join("moved")).unwrap();
    symlink(&outside, volumes.join("data")).unwrap();
    assert_eq!(host.perform(&prepare(&BOTH)).await.unwrap_err().code, codes::FILES_FAILED);
    fs::remove_file(volumes.join("data")).unwrap();
    fs::rename(&volumes, node.home().join("elsewhere")).unwrap();
    symlink(&outside, &volumes).unwrap();
    assert_eq!(host.perform(&prepare(&BOTH)).await.unwrap_err().code, codes::FILES_FAILED);
    let left: Vec<_> = fs::read_dir(&outside).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["victim"]);
    assert_eq!(fs::read_to_string(outside.join("victim")).unwrap(), "kept");

    host.perform(&Action::Erase { partition: part() }).await.unwrap();
    assert!(!node.home().join("elsewhere").exists() && !volumes.exists(), "it ends with the instance");
    node.done(host).await;
}
