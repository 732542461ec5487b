//! What nothing uses, and room on the disk: on a small file system of its own.

use super::cache::{entry, large, open_with, source};
use super::sources::builds;
use super::web::Web;
use super::*;
use plat_agent::config::ReleaseSettings;
use plat_agent_plan::{KeepPolicy, StoreFacts, Stored, plan_garbage, shortage};
use plat_model::Timestamp;
use std::collections::BTreeSet;
use std::process::Command;

const MIB: u64 = 1 << 20;

/// An ext4 file system in a file, at the place of the node's releases, which holds the agent's state too.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    pub fn under(node: &Node, mib: u64) -> Self {
        let (image, place) = (node.folder.path().join("image"), node.folder.path().join("releases"));
        fs::File::create(&image).unwrap().set_len(mib * MIB).unwrap();
        fs::create_dir_all(&place).unwrap();
        let run = |command: &mut Command| assert!(command.status().unwrap().success(), "{command:?}");
        run(Command::new("mkfs.ext4").args(["-q", "-m", "0"]).arg(&image));
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&place));
        let state = place.join("state");
        fs::create_dir(&state).unwrap();
        symlink(&state, node.state()).unwrap();
        Self(place)
    }

    pub fn free(&self) -> u64 {
        let disk = nix::sys::statvfs::statvfs(&self.0).unwrap();
        disk.blocks_available() * disk.fragment_size()
    }

    /// Leaves so many bytes free.
    fn fill_to(&self, free: u64) -> PathBuf {
        let path = self.0.join("ballast");
        let file = fs::File::create(&path).unwrap();
        let size = self.free() - free;
        nix::fcntl::fallocate(&file, nix::fcntl::FallocateFlags::empty(), 0, size.try_into().unwrap()).unwrap();
        path
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

fn now() -> Timestamp {
    plat_agent::clock::Clock::now(&plat_agent::clock::SystemClock)
}

/// Looks once and does what follows, as the daemon does; what was to go.
async fn tidy(host: &LinuxHost, needed: &[&Digest], policy: &KeepPolicy) -> Vec<Stored> {
    let facts: StoreFacts = host.observe_store().await.unwrap();
    let needed: BTreeSet<Digest> = needed.iter().map(|digest| (*digest).clone()).collect();
    let plan = plan_garbage(&facts, &needed, policy, now());
    let mut gone: Vec<Stored> = plan.releases.into_iter().map(Stored::Release).collect();
    for digest in gone.iter().filter_map(|one| if let Stored::Release(digest) = one { Some(digest) } else { None }) {
        host.perform(&Action::RemoveRelease { digest: digest.clone() }).await.unwrap();
    }
    for action in plan.actions {
        host.perform(&action).await.unwrap();
        if let Action::RemoveContent { path } = action {
            gone.push(Stored::Content(path));
        }
    }
    gone
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_what_nothing_uses_goes_the_oldest_first_and_what_is_used_stays() {
    if !root_is_here() {
        return;
    }
    let (node, host) = builds(UID + 80).await;
    drop(host);
    fs::remove_dir_all(node.state()).unwrap();
    let disk = SmallDisk::under(&node, 96);
    let policy = KeepPolicy { min_free: 16 * MIB, ..KeepPolicy::default() };
    let host = open_with(&node, &ReleaseSettings { policy, ..ReleaseSettings::default() }).await;
    let files = [large(20, 4 << 20), large(21, 4 << 20)];
    let of = |bytes: &Vec<u8>| (format!("/{}", hex(bytes)), bytes.clone());
    let web = Web::of(files.iter().map(of).collect());
    let text = |bytes: &[u8]| {
        let url = format!("{}/{}", web.url, hex(bytes));
        document(serde_json::json!({"app": source(&url, bytes)}), &[])
    };
    let (kept, done) = install(&host, &text(&files[0])).await;
    done.unwrap();
    let (unused, done) = install(&host, &text(&files[1])).await;
    done.unwrap();
    assert_eq!(tidy(&host, &[&kept], &policy).await, []);
    let since = host.observe_store().await.unwrap().entries;
    let noted = |digest: &Digest| since.iter().find(|one| one.what == Stored::Release(digest.clone())).unwrap();
    assert!(noted(&unused).unused_since.is_some() && noted(&kept).unused_since.is_none());
    // The files came before the second release was seen to be unused.
    let ballast = disk.fill_to(10 * MIB);
    let problem = shortage(&host.observe_disks().await.unwrap(), &policy).unwrap();
    assert_eq!(problem.code, codes::DISK_FULL);
    let other = large(22, 1000);
    let refused = install(&host, &document(archive(&node, &other), &[])).await.1.unwrap_err();
    assert_eq!(refused.code, codes::DISK_FULL, "{refused}");
    let paths = files.each_ref().map(|bytes| Stored::Content(format!("sha256/{}", hex(bytes))));
    assert_eq!(tidy(&host, &[&kept], &policy).await, paths, "two files of 4 MiB make up for 6");
    assert!(!entry(&node, &files[0]).exists() && shortage(&host.observe_disks().await.unwrap(), &policy).is_none());
    // Short again: now the release that nothing needs, and then nothing more.
    fs::remove_file(&ballast).unwrap();
    disk.fill_to(10 * MIB);
    assert_eq!(tidy(&host, &[&kept], &policy).await, [Stored::Release(unused.clone())]);
    assert_eq!(tidy(&host, &[&kept], &policy).await, []);
    assert_eq!(host.observe_release(&kept).await, ReleaseFact::Installed);
    assert_eq!(host.observe_release(&unused).await, ReleaseFact::Absent);
    fs::remove_file(ballast).unwrap();
    install(&host, &document(archive(&node, &other), &[])).await.1.unwrap_or_else(|p| panic!("{p}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn for_a_file_that_does_not_fit_what_nothing_uses_goes_and_then_it_is_fetched() {
    if !root_is_here() {
        return;
    }
    let (node, host) = builds(UID + 114).await;
    drop(host);
    fs::remove_dir_all(node.state()).unwrap();
    let disk = SmallDisk::under(&node, 48);
    let policy = KeepPolicy { min_free: 4 * MIB, ..KeepPolicy::default() };
    let host = open_with(&node, &ReleaseSettings { policy, ..ReleaseSettings::default() }).await;
    let files = [large(25, 2 << 20), large(26, 2 << 20), large(27, 6 << 20)];
    let web = Web::of(files.iter().map(|bytes| (format!("/{}", hex(bytes)), bytes.clone())).collect());
    let text =
        |bytes: &[u8]| document(serde_json::json!({"app": source(&format!("{}/{}", web.url, hex(bytes)), bytes)}), &[]);
    let (used, done) = install(&host, &text(&files[0])).await;
    done.unwrap();
    let (unused, done) = install(&host, &text(&files[1])).await;
    done.unwrap();
    // More than must stay free, and less than the third takes: its file, and then the release of it.
    disk.fill_to(5 * MIB);
    let mut gone = Vec::new();
    let removing = async {
        until("room was made for the file", async || {
            let is_waited_for = host.observe_disks().await.unwrap().values().any(|disk| !disk.asked.is_empty());
            if is_waited_for {
                gone.extend(tidy(&host, &[&used], &policy).await);
            }
            entry(&node, &files[2]).exists()
        })
        .await;
    };
    let third = text(&files[2]);
    let (third, ()) = tokio::join!(install(&host, &third), removing);
    drop(third);
    let content = |bytes: &[u8]| Stored::Content(format!("sha256/{}", hex(bytes)));
    gone.sort();
    let mut all = [Stored::Release(unused), content(&files[0]), content(&files[1])];
    all.sort();
    assert_eq!(gone, all, "neither the release that is used nor what is being fetched");
    assert_eq!(host.observe_release(&used).await, ReleaseFact::Installed);
    assert!(host.observe_disks().await.unwrap().values().all(|disk| disk.asked.is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_does_not_fit_is_not_begun_and_says_how_much_there_is() {
    if !root_is_here() {
        return;
    }
    let (node, host) = builds(UID + 81).await;
    drop(host);
    fs::remove_dir_all(node.state()).unwrap();
    let _disk = SmallDisk::under(&node, 32);
    let policy = KeepPolicy { min_free: 4 * MIB, ..KeepPolicy::default() };
    let patience = Duration::from_millis(10);
    let host = open_with(&node, &ReleaseSettings { policy, patience, ..ReleaseSettings::default() }).await;
    let bytes = large(23, 40 << 20);
    let web = Web::of(BTreeMap::from([("/x".to_owned(), bytes.clone())]));
    let problem = super::sources::laid(&node, &host, source(&format!("{}/x", web.url), &bytes)).await.unwrap_err();
    assert_eq!(problem.code, codes::DISK_FULL, "{problem}");
    assert!(problem.why.contains("41 MiB more, and 4 MiB must stay free"), "{problem}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_old_goes_and_what_is_about_to_be_used_does_not() {
    let (node, host) = builds(UID + 82).await;
    let bytes = large(24, 1000);
    let web = Web::of(BTreeMap::from([("/x".to_owned(), bytes.clone())]));
    let slow = document(serde_json::json!({"app": source(&format!("{}/x", web.url), &bytes)}), &[&["sh", "-c", WAIT]]);
    let first = Digest::parse(&hex(slow.as_bytes())).unwrap();
    let policy = KeepPolicy { keep: Duration::ZERO, min_free: 0 };
    let while_it_builds = async {
        until("its command runs", async || {
            matches!(host.observe_release(&first).await, ReleaseFact::Building(what) if what.starts_with("running"))
        })
        .await;
        assert_eq!(tidy(&host, &[], &policy).await, []);
        let path = format!("sha256/{}", hex(&bytes));
        host.perform(&Action::RemoveContent { path }).await.unwrap();
        assert!(entry(&node, &bytes).exists());
        go_on(&node, &first);
    };
    let (built, ()) = tokio::join!(install(&host, &slow), while_it_builds);
    built.1.unwrap();
    // A process that asked for an offer was killed.
    let left = node.state().join("host/cache/partial/.offer-0123456789abcdef");
    fs::write(&left, "").unwrap();
    let gone = tidy(&host, &[], &policy).await;
    let contents = [format!("partial/{}", left.file_name().unwrap().display()), format!("sha256/{}", hex(&bytes))];
    let expected: Vec<_> = [Stored::Release(first)].into_iter().chain(contents.map(Stored::Content)).collect();
    assert_eq!(gone, expected);
    assert!(!entry(&node, &bytes).exists() && !left.exists());
    let (forged, bad) = (codes::FORGED, codes::BAD_VALUE);
    for (path, code) in [("sha256/../../x", forged), ("x", bad), ("state/x", bad), ("partial/..", forged)] {
        let problem = host.perform(&Action::RemoveContent { path: path.into() }).await.unwrap_err();
        assert_eq!(problem.code, code, "{path}");
    }
}
