//! What `nft` lists, read. Whatever else than Plat's own words somebody put into the table must not be an error, but be
//! seen as a difference.

use crate::host::linux::failed;
use node_format_plan::facts::Guard;
use plat_model::problem::Result;
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

/// Family and name of each table.
pub(super) fn tables(json: &str) -> Result<BTreeSet<(String, String)>> {
    let text = |table: &Value, key: &str| table.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let objects = objects(json)?;
    let tables = objects.iter().filter_map(|object| object.get("table"));
    Ok(tables.map(|table| (text(table, "family"), text(table, "name"))).collect())
}

/// One table, from the two forms of its listing.
pub(super) fn read(family: &str, json: &str, text: String) -> Result<Guard> {
    let objects = objects(json)?;
    let sets = objects.iter().filter_map(|object| object.get("set").or_else(|| object.get("map")));
    let elements = sets.flat_map(|set| {
        let name = set.get("name").and_then(Value::as_str).unwrap_or_default();
        let list = set.get("elem").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        list.iter().map(move |element| format!("{name} {}", element_text(element)))
    });
    let rules = objects.iter().filter(|object| object.get("rule").is_some()).count();
    // A table with a flag (`dormant`) does not do what its rules say.
    let flagged = objects.iter().any(|object| object.get("table").is_some_and(|table| table.get("flags").is_some()));
    let fingerprint = fingerprint(&text).filter(|_| !flagged).unwrap_or_default();
    Ok(Guard {
        fingerprint: fingerprint.to_owned(),
        rules: u32::try_from(rules).unwrap_or(u32::MAX),
        elements: elements.collect(),
        script: format!("add table {family} plat\ndelete table {family} plat\n{text}"),
    })
}

fn objects(json: &str) -> Result<Vec<Value>> {
    let mut listing: Value = serde_json::from_str(json).map_err(|e| failed("nft's listing cannot be read", e))?;
    match listing.get_mut("nftables").map(Value::take) {
        Some(Value::Array(objects)) => Ok(objects),
        _ => Err(failed("nft's listing cannot be read", "it has no list `nftables`")),
    }
}

/// What the table's comment says. The JSON of nft 1.0 leaves comments of tables out.
fn fingerprint(text: &str) -> Option<&str> {
    let own = text.lines().skip(1).map(str::trim).take_while(|line| !line.ends_with('{'));
    own.filter_map(|line| line.strip_prefix("comment \"node-format ")?.strip_suffix('"')).next()
}

/// As the planner writes it: a range by its ends, an address in its shortest form.
fn element_text(element: &Value) -> String {
    if let Some([key, value]) = element.as_array().map(Vec::as_slice) {
        return format!("{} : {}", element_text(key), element_text(value));
    }
    let part = |key: &str| element.get(key);
    if let Some(inner) = part("elem").and_then(|elem| elem.get("val")) {
        return element_text(inner);
    }
    if let Some(parts) = part("concat").and_then(Value::as_array) {
        return parts.iter().map(element_text).collect::<Vec<_>>().join(" . ");
    }
    if let Some([first, last]) = part("range").and_then(Value::as_array).map(Vec::as_slice) {
        return format!("{}-{}", element_text(first), element_text(last));
    }
    if let Some(range) = part("prefix").and_then(prefix) {
        return range;
    }
    match element {
        Value::String(text) => plain(text),
        other => other.to_string(),
    }
}

fn prefix(prefix: &Value) -> Option<String> {
    let address: IpAddr = prefix.get("addr")?.as_str()?.parse().ok()?;
    let length = u8::try_from(prefix.get("len")?.as_u64()?).ok()?;
    let net = ipnet::IpNet::new(address, length).ok()?;
    Some(if net.network() == net.broadcast() {
        address.to_string()
    } else {
        format!("{}-{}", net.network(), net.broadcast())
    })
}

/// A text; an address in the shortest form, plain bits as the IPv6 address that they are.
fn plain(text: &str) -> String {
    if let Some(Ok(bits)) = text.strip_prefix("0x").map(|digits| u128::from_str_radix(digits, 16)) {
        return Ipv6Addr::from_bits(bits).to_string();
    }
    text.parse::<IpAddr>().map_or_else(|_| text.to_owned(), |address| address.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "table inet plat {\n\tcomment \"node-format 1a2b3c4d\"\n\tset own6 {\n\t\ttype uid . ipv6_addr\n";

    #[test]
    fn elements_are_read_in_every_form_that_nft_writes() {
        let json = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}}, {"table": {"family": "inet", "name": "plat"}},
            {"set": {"name": "own6", "elem": [
                {"concat": [20000, {"prefix": {"addr": "fd00:0:0:1::", "len": 81}}]},
                {"concat": ["part0", {"range": ["0xfe800000000000000000000000000001", "0xfe800000000000000000000000000002"]}]},
                {"elem": {"val": "10.0.0.1", "counter": {"packets": 1}}}, {"range": [20000, 20009]}, "part1"]}},
            {"map": {"name": "main6", "elem": [[20000, "fd00:0:0:1::1"]]}}, {"set": {"name": "empty"}},
            {"rule": {}}, {"rule": {}}]}"#;
        let guard = read("inet", json, TEXT.into()).unwrap();
        let elements = [
            "main6 20000 : fd00:0:0:1::1",
            "own6 10.0.0.1",
            "own6 20000 . fd00:0:0:1::-fd00::1:0:7fff:ffff:ffff",
            "own6 20000-20009",
            "own6 part0 . fe80::1-fe80::2",
            "own6 part1",
        ];
        assert_eq!(guard.elements.iter().map(String::as_str).collect::<Vec<_>>(), elements);
        assert_eq!((guard.rules, guard.fingerprint.as_str()), (2, "1a2b3c4d"));
        assert!(guard.script.starts_with("add table inet plat\ndelete table inet plat\ntable inet plat {"));
    }

    #[test]
    fn a_table_that_sleeps_or_has_no_comment_of_ours_has_no_fingerprint() {
        let dormant = r#"{"nftables": [{"table": {"family": "inet", "name": "plat", "flags": ["dormant"]}}]}"#;
        assert_eq!(read("inet", dormant, TEXT.into()).unwrap().fingerprint, "");
        let inside = "table inet plat {\n\tset a {\n\t\tcomment \"node-format 1\"\n";
        assert_eq!(read("inet", r#"{"nftables": []}"#, inside.into()).unwrap().fingerprint, "");
    }

    #[test]
    fn what_is_not_a_listing_is_refused() {
        assert!(read("inet", "", TEXT.into()).is_err());
        assert!(tables("[]").is_err());
        assert!(tables(r#"{"nftables": 3}"#).is_err());
    }
}
