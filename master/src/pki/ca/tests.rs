use super::*;
use plat_model::id::NodeId;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::*;

fn grid() -> GridName {
    GridName::parse("campus").unwrap()
}

fn now() -> Timestamp {
    Timestamp::parse("2026-11-21T08:00:00Z").unwrap()
}

fn made() -> (tempfile::TempDir, Ca) {
    let folder = tempfile::tempdir().unwrap();
    let ca = Ca::create(&folder.path().join("ca"), &grid(), now()).unwrap();
    (folder, ca)
}

fn requested() -> RequestedKey {
    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::new(vec!["root.example".into()]).unwrap().serialize_request(&key).unwrap();
    RequestedKey::parse(csr.der()).unwrap()
}

#[test]
fn a_node_certificate_says_one_uri_and_is_good_for_clients_only() {
    let (_folder, ca) = made();
    let identity = Identity::Node(NodeId::parse("n1").unwrap());
    let serial = Serial::random().unwrap();
    let validity = ca.validity(now(), Duration::from_secs(86_400));
    let chain = ca.sign_client(&grid(), &identity, &requested(), &serial, validity).unwrap();
    let (_, leaf) = parse_x509_certificate(&chain[0]).unwrap();
    assert_eq!(super::super::hex(leaf.raw_serial()), serial.hex());
    let names = &leaf.subject_alternative_name().unwrap().unwrap().value.general_names;
    assert_eq!(names[..], [GeneralName::URI("spiffe://campus/node/n1")]);
    let usage = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth && !usage.any);
    assert!(!leaf.is_ca());
    assert_eq!(leaf.validity().not_after.timestamp(), now().seconds() + 86_400);
    let (_, issuing) = parse_x509_certificate(&chain[1]).unwrap();
    leaf.verify_signature(Some(issuing.public_key())).unwrap();
    let (_, root) = parse_x509_certificate(ca.root_der()).unwrap();
    issuing.verify_signature(Some(root.public_key())).unwrap();
}

#[test]
fn the_master_certificate_is_good_for_servers_only_and_names_its_addresses() {
    let (_folder, ca) = made();
    let names = ["master.example".to_owned(), "::1".to_owned()];
    let chain = ca.sign_master(&grid(), &names, &requested(), ca.validity(now(), Duration::from_secs(60))).unwrap();
    let (_, leaf) = parse_x509_certificate(&chain[0]).unwrap();
    let usage = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.server_auth && !usage.client_auth);
    let names = &leaf.subject_alternative_name().unwrap().unwrap().value.general_names;
    assert!(names.contains(&GeneralName::DNSName("master.example")));
    assert!(names.contains(&GeneralName::URI("spiffe://campus/master")));
    assert!(names.iter().any(|name| matches!(name, GeneralName::IPAddress(bytes) if bytes.len() == 16)));
}

#[test]
fn a_certificate_never_outlives_the_one_that_signed_it() {
    let (_folder, ca) = made();
    assert_eq!(ca.validity(now(), 100 * YEAR).not_after, now().plus(ISSUING_VALID));
}

#[test]
fn the_issuing_certificate_can_sign_leaves_only() {
    let (_folder, ca) = made();
    let (_, issuing) = parse_x509_certificate(&ca.issuing_der).unwrap();
    let constraints = issuing.extensions().iter().find_map(|e| match e.parsed_extension() {
        ParsedExtension::BasicConstraints(c) => Some(c.path_len_constraint),
        _ => None,
    });
    assert_eq!(constraints, Some(Some(0)));
}

#[test]
fn a_ca_whose_key_is_not_of_its_certificate_is_refused() {
    let (folder, _ca) = made();
    let path = folder.path().join("ca").join(ISSUING_KEY);
    std::fs::remove_file(&path).unwrap();
    keyfile::write(&path, &KeyPair::generate().unwrap().serialize_pem()).unwrap();
    let problem = Ca::load(&folder.path().join("ca")).err().unwrap();
    assert_eq!(problem.code, codes::KEY_FILE);
    assert!(!problem.to_string().contains("PRIVATE KEY"));
}
