//! Images in the OCI layout, which the test makes.

use super::sources::{builds, laid};
use super::web::Web;
use super::*;
use serde_json::{Value, json};
use tar::EntryType::{Char, Directory, Fifo, Link, Regular, Symlink};

type Entries<'a> = &'a [(&'a str, &'a str, tar::EntryType)];

/// A folder with an image.
struct Image {
    folder: PathBuf,
    manifest: String,
}

impl Image {
    fn new(folder: PathBuf, layers: &[Entries]) -> Self {
        fs::create_dir_all(folder.join("blobs/sha256")).unwrap();
        fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        let mut image = Self { folder, manifest: String::new() };
        let layers: Vec<Value> = layers
            .iter()
            .enumerate()
            .map(|(n, entries)| {
                let kinds = [".tar", ".tar+gzip"];
                let mut bytes = tar(entries);
                if n % 2 == 1 {
                    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                    packed.write_all(&bytes).unwrap();
                    bytes = packed.finish().unwrap();
                }
                image.blob(&bytes, &format!("application/vnd.oci.image.layer.v1{}", kinds[n % 2]))
            })
            .collect();
        image.of_layers(layers);
        image
    }

    /// Writes a blob and gives its descriptor.
    fn blob(&self, bytes: &[u8], kind: &str) -> Value {
        fs::write(self.folder.join("blobs/sha256").join(hex(bytes)), bytes).unwrap();
        json!({"mediaType": kind, "digest": format!("sha256:{}", hex(bytes)), "size": bytes.len()})
    }

    fn of_layers(&mut self, layers: Vec<Value>) {
        let config = self.blob(b"{}", "application/vnd.oci.image.config.v1+json");
        self.of_json(&json!({"schemaVersion": 2, "config": config, "layers": layers}));
    }

    fn of_json(&mut self, manifest: &Value) {
        let digest = self.blob(manifest.to_string().as_bytes(), "")["digest"].clone();
        self.manifest = digest.as_str().unwrap().to_owned();
    }

    fn source(&self) -> Value {
        json!({"oci": {"layout": self.folder, "manifest": self.manifest, "into": "image"}})
    }
}

fn image(node: &Node, name: &str, layers: &[Entries]) -> Image {
    Image::new(node.folder.path().join(name), layers)
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_are_laid_over_each_other_and_hide_what_is_below_them() {
    let (node, host) = builds(UID + 60).await;
    let base: Entries = &[
        ("etc/", "", Directory),
        ("etc/gone", "x", Regular),
        ("etc/kept", "x", Regular),
        ("usr/bin/run", "#!/bin/sh\n", Regular),
        ("bin", "usr/bin", Symlink),
        ("var/run", "/run", Symlink),
        ("etc/mtab", "/proc/mounts", Symlink),
        ("data/old/deep", "x", Regular),
        ("swap/in/it", "x", Regular),
        ("plain", "x", Regular),
    ];
    let next: Entries = &[
        // What is added is not hidden by what stands after it.
        ("data/new", "x", Regular),
        ("data/.wh..wh..opq", "", Regular),
        ("etc/.wh.gone", "", Regular),
        ("etc/.wh.never-there", "", Regular),
        ("etc/kept", "changed", Regular),
        (".wh..wh.plnk", "", Regular),
        ("swap", "a file now", Regular),
        ("plain/", "", Directory),
        ("plain/file", "x", Regular),
        ("bin/again", "usr/bin/run", Link),
        ("run/here", "x", Regular),
    ];
    let image = image(&node, "layout", &[base, next]);
    let folder = laid(&node, &host, image.source()).await.unwrap_or_else(|p| panic!("{p}")).join("image");
    let mut found = Vec::new();
    let mut open = vec![folder.clone()];
    while let Some(here) = open.pop() {
        for entry in fs::read_dir(here).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
            } else {
                found.push(entry.path().strip_prefix(&folder).unwrap().display().to_string());
            }
        }
    }
    found.sort();
    let expected = ["bin", "data/new", "etc/kept", "etc/mtab", "plain/file", "run/here", "swap"];
    let rest = ["usr/bin/again", "usr/bin/run", "var/run"];
    assert_eq!(found, [&expected[..], &rest].concat());
    assert_eq!(fs::read_to_string(folder.join("etc/kept")).unwrap(), "changed");
    assert_eq!(fs::metadata(folder.join("bin/again")).unwrap().mode() & 0o7777, 0o555, "no setuid, no write");
    assert!(fs::metadata(folder.join("var/run/here")).is_ok(), "an absolute link leads into the image");
    assert!(fs::metadata(folder.join("etc/mtab")).is_err(), "and never to the node");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_fetched_as_an_archive_and_touches_no_other_source() {
    let (node, host) = builds(UID + 61).await;
    let image =
        image(&node, "layout", &[&[("a", "x", Regular)], &[(".wh..wh..opq", "", Regular), ("b", "y", Regular)]]);
    let mut packed = tar::Builder::new(Vec::new());
    packed.append_dir_all(".", &image.folder).unwrap();
    let bytes = packed.into_inner().unwrap();
    let web = Web::of(BTreeMap::from([("/image.tar".to_owned(), bytes.clone())]));
    let own = node.folder.path().join("own");
    fs::create_dir(&own).unwrap();
    fs::write(own.join("mine"), "x").unwrap();
    let mut source =
        json!({"oci": {"layout": format!("{}/image.tar", web.url), "sha256": hex(&bytes), "manifest": image.manifest}});
    let of = |source: &Value| {
        let sources = json!({"app": {"directory": {"path": own}}, "image": source});
        whole(json!({"sources": sources}))
    };
    let (digest, done) = install(&host, &of(&source)).await;
    done.unwrap_or_else(|p| panic!("{p}"));
    let folder = node.folder.path().join("releases").join(digest.as_str());
    assert!(folder.join("mine").exists() && folder.join("b").exists() && !folder.join("a").exists());
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 3, "and the manifest");
    fs::write(own.join("b"), "mine").unwrap();
    source["oci"]["into"] = "".into();
    let problem = install(&host, &of(&source)).await.1.unwrap_err();
    assert!(problem.why.contains("`b` is there already") && problem.at == "sources.image", "{problem}");
    source["oci"]["sha256"] = "0".repeat(64).into();
    assert_eq!(install(&host, &of(&source)).await.1.unwrap_err().code, codes::SOURCE_CHECKSUM);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_reaches_out_is_refused() {
    let (node, host) = builds(UID + 62).await;
    fs::write(node.folder.path().join("victim"), "x").unwrap();
    let hostile: [&[Entries]; 10] = [
        &[&[("../evil", "x", Regular)]],
        &[&[("/evil", "x", Regular)]],
        &[&[("a/../../.wh.victim", "", Regular)]],
        &[&[("a/x", "x", Regular), ("a/.wh...", "", Regular)]],
        &[&[("a/x", "x", Regular), ("a/.wh.", "", Regular)]],
        &[&[("link", "../../..", Symlink)]],
        &[&[("link", "../../../..", Symlink)], &[("link/.wh.victim", "", Regular)]],
        &[&[("hard", "../../victim", Link)]],
        &[&[("dev/null", "", Char)]],
        &[&[("pipe", "", Fifo)]],
    ];
    for (n, layers) in hostile.iter().enumerate() {
        let image = image(&node, &format!("layout{n}"), layers);
        let problem = laid(&node, &host, image.source()).await.unwrap_err();
        assert_eq!(problem.code, codes::BAD_ARCHIVE, "{n}: {problem}");
    }
    assert!(node.folder.path().join("victim").exists());
    until("what was begun is removed", async || unfinished(&node) == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_is_another_one_is_cut_off_or_is_missing_is_told() {
    let (node, host) = builds(UID + 63).await;
    let mut image = image(&node, "layout", &[&[("a", "x", Regular)]]);
    let good = image.blob(&tar(&[("a", "x", Regular)]), "application/vnd.oci.image.layer.v1.tar");
    let path = image.folder.join("blobs/sha256").join(&good["digest"].as_str().unwrap()[7..]);
    let bytes = fs::read(&path).unwrap();
    for wrong in [&bytes[..bytes.len() / 2], &[&bytes[..], b"more"].concat(), &tar(&[("b", "x", Regular)])] {
        fs::write(&path, wrong).unwrap();
        let problem = laid(&node, &host, image.source()).await.unwrap_err();
        assert_eq!((problem.code, problem.at.as_str()), (codes::SOURCE_CHECKSUM, "sources.app"), "{problem}");
    }
    fs::write(&path, &bytes).unwrap();
    let mut sized = good.clone();
    sized["size"] = json!(1);
    image.of_layers(vec![sized]);
    assert_eq!(laid(&node, &host, image.source()).await.unwrap_err().code, codes::SOURCE_CHECKSUM);
    image.of_layers(vec![good]);
    fs::remove_file(&path).unwrap();
    let problem = laid(&node, &host, image.source()).await.unwrap_err();
    assert!(problem.code == codes::BAD_ARCHIVE && problem.why.contains("No such file"), "{problem}");
    symlink("/etc/passwd", &path).unwrap();
    assert_eq!(laid(&node, &host, image.source()).await.unwrap_err().code, codes::BAD_ARCHIVE);
    fs::remove_file(&path).unwrap();
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o644)).unwrap();
    assert_eq!(laid(&node, &host, image.source()).await.unwrap_err().code, codes::BAD_ARCHIVE);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_image_is_told_with_what_to_name_instead() {
    let (node, host) = builds(UID + 64).await;
    let mut image = image(&node, "layout", &[&[("a", "x", Regular)]]);
    let manifest = image.manifest.clone();
    let one = json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": manifest, "size": 5,
        "platform": {"os": "linux", "architecture": "amd64"}});
    image.of_json(&json!({"schemaVersion": 2, "manifests": [one]}));
    let problem = laid(&node, &host, image.source()).await.unwrap_err();
    assert!(problem.todo.contains(&format!("{manifest} (linux/amd64)")), "{problem}");
    let chart = image.blob(b"x", "application/vnd.cncf.helm.chart.content.v1.tar+gzip");
    image.of_layers(vec![chart]);
    let problem = laid(&node, &host, image.source()).await.unwrap_err();
    assert!(problem.why.contains("not an archive of files"), "{problem}");
    image.of_json(&json!({"schemaVersion": 2}));
    assert_eq!(laid(&node, &host, image.source()).await.unwrap_err().code, codes::BAD_ARCHIVE);
}
