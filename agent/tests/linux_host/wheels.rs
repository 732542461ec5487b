//! Python packages: wheels and an index that the test makes.

use super::sources::{builds, laid, manifest};
use super::web::{Answer, Web};
use super::*;
use serde_json::{Value, json};
use std::process::Command;

/// Writes a wheel: `contents` is a Python expression of a map, path → text; `after` may spoil the open archive `z`.
pub fn wheel(node: &Node, name: &str, contents: &str, after: &str) -> Vec<u8> {
    let path = node.folder.path().join("wheel");
    let script = format!(
        "import zipfile\nname = '{name}'\ninfo = name + '-1.0.dist-info/'\nfiles = {contents}\n\
         files[info + 'METADATA'] = 'Metadata-Version: 2.1\\nName: ' + name + '\\nVersion: 1.0\\nRequires-Dist: missing\\n'\n\
         files[info + 'WHEEL'] = 'Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n'\n\
         files[info + 'RECORD'] = ''.join(f + ',,\\n' for f in [*files, info + 'RECORD'])\n\
         z = zipfile.ZipFile('{}', 'w')\nfor f in files: z.writestr(f, files[f])\n{after}\nz.close()\n",
        path.display()
    );
    let said = Command::new("/usr/bin/python3").args(["-I", "-c", &script]).output().unwrap();
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    fs::read(path).unwrap()
}

/// A simple index of one package.
fn index(name: &str, file: &str, bytes: &[u8]) -> Web {
    index_as(name, file, bytes, None)
}

/// Over https, if there is a certificate for it.
pub fn index_as(name: &str, file: &str, bytes: &[u8], tls: Option<std::sync::Arc<rustls::ServerConfig>>) -> Web {
    let (page, at) = (format!("/simple/{name}/"), format!("/files/{file}"));
    let (link, bytes) = (format!("<a href=\"../../files/{file}\">{file}</a>"), bytes.to_vec());
    Web::serve_as(tls, move |asked| match asked.path.as_str() {
        path if path == page => Answer { kind: "text/html", ..Answer::of(link.clone()) },
        path if path == at => Answer::of(bytes.clone()),
        _ => Answer::nothing(),
    })
}

pub fn source(web: &Web, name: &str, sum: &str) -> Value {
    let package = json!({"name": name, "version": "1.0", "sha256": sum});
    json!({"pypi": {"packages": [package], "index": format!("{}/simple", web.url), "into": "python"}})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wheel_is_fetched_checked_and_installed_without_what_it_depends_on() {
    let (node, host) = builds(UID + 70).await;
    let contents = "{'greeting/__init__.py': 'def main(): print(\"hello\")\\n', \
        info + 'entry_points.txt': '[console_scripts]\\ngreet = greeting:main\\n'}";
    let bytes = wheel(&node, "greeting", contents, "");
    let web = index("greeting", "greeting-1.0-py3-none-any.whl", &bytes);
    let mut source = source(&web, "Greeting", &hex(&bytes));
    let other = json!({"name": "greeting", "version": "1.0", "sha256": "0".repeat(64)});
    source["pypi"]["packages"].as_array_mut().unwrap().push(other);
    let folder = laid(&node, &host, source).await.unwrap_or_else(|p| panic!("{p}"));
    let said = Command::new(folder.join("python/bin/greet")).env("PYTHONPATH", folder.join("python")).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&said.stdout), "hello\n", "{}", String::from_utf8_lossy(&said.stderr));
    assert_eq!(manifest(&folder)["sources"]["app"][0]["sha256"], hex(&bytes));
    assert!(!web.asked().iter().any(|path| path.contains("missing")), "{:?}", web.asked());
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 2, "the packages and the manifest");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wheel_that_is_another_one_is_missing_or_has_to_be_built_is_told() {
    let (node, host) = builds(UID + 71).await;
    let bytes = wheel(&node, "greeting", "{'greeting.py': ''}", "");
    let web = index("greeting", "greeting-1.0-py3-none-any.whl", &bytes);
    let problem = laid(&node, &host, source(&web, "greeting", &"0".repeat(64))).await.unwrap_err();
    assert_eq!((problem.code, problem.at.as_str()), (codes::SOURCE_CHECKSUM, "sources.app"), "{problem}");
    let problem = laid(&node, &host, source(&web, "absent", &hex(&bytes))).await.unwrap_err();
    assert_eq!(problem.code, codes::SOURCE_FETCH, "{problem}");
    assert!(problem.why.contains("absent"), "{problem}");
    let built = index("greeting", "greeting-1.0.tar.gz", &bytes);
    let problem = laid(&node, &host, source(&built, "greeting", &hex(&bytes))).await.unwrap_err();
    assert!(problem.code == codes::SOURCE_FETCH && problem.todo.contains("wheel"), "{problem}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wheel_that_reaches_out_or_is_too_large_unpacked_is_refused() {
    let (node, host) = builds(UID + 72).await;
    for (contents, after) in [
        ("{'../../../evil': 'x'}", ""),
        ("{'a.py': 'x'}", "z.infolist()[0].file_size = 40 << 30"),
        ("{}", "z.close(); open(z.filename, 'w').write('no zip')"),
    ] {
        let bytes = wheel(&node, "greeting", contents, after);
        let web = index("greeting", "greeting-1.0-py3-none-any.whl", &bytes);
        let problem = laid(&node, &host, source(&web, "greeting", &hex(&bytes))).await.unwrap_err();
        assert_eq!(problem.code, codes::BAD_ARCHIVE, "{contents} {after}: {problem}");
    }
    until("what was begun is removed", async || unfinished(&node) == 0).await;
    assert!(!node.folder.path().join("releases/evil").exists() && !node.folder.path().join("evil").exists());
}
