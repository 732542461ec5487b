//! From a certificate to who its holder is. Nothing else in the grid reads certificates for that, and nothing but the
//! one URI SAN, the serial number and the validity is read.

use plat_model::id::{GridName, shorten};
use plat_model::identity::{Identity, Validity};
use plat_model::problem::codes;
use plat_model::{Problem, Result, Timestamp};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Who is at the other end of a connection, as its certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    pub identity: Identity,
    /// Serial number of the certificate as [`serial_hex`] writes it.
    pub serial_hex: String,
    /// When the certificate ends. TLS looks at that when a connection begins, and never again.
    pub not_after: Timestamp,
}

/// A serial number as rows keep it: lower-case hex of its big-endian bytes, without leading zero bytes.
pub fn serial_hex(bytes: &[u8]) -> String {
    let start = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
    bytes[start..].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Who a certificate of `grid` says its holder is. Whether it chains to the grid's CA is checked before, by TLS.
///
/// # Errors
/// [`codes::TLS`] if it is no certificate, names no identity or several, or one of another grid.
pub fn peer_identity(certificate_der: &[u8], grid: &GridName) -> Result<PeerIdentity> {
    let certificate = parse(certificate_der)?;
    let uri = only_uri(&certificate)?;
    let identity = Identity::from_uri(uri, grid)
        .ok_or_else(|| wrong(format!("it is for `{}`, which is no identity of the grid {grid}", shorten(uri))))?;
    let not_after = Timestamp::from_seconds(certificate.validity().not_after.timestamp());
    Ok(PeerIdentity { identity, serial_hex: serial_hex(certificate.raw_serial()), not_after })
}

/// The grid whose master a certificate is for: for enrolment, where the grid's name is not known yet.
///
/// # Errors
/// [`codes::TLS`] if it is not the certificate of a master.
pub(crate) fn grid_of_master(certificate_der: &[u8]) -> Result<GridName> {
    let certificate = parse(certificate_der)?;
    let uri = only_uri(&certificate)?;
    let grid = uri.strip_prefix("spiffe://").and_then(|rest| rest.strip_suffix("/master"));
    grid.and_then(|grid| GridName::parse(grid).ok())
        .ok_or_else(|| wrong(format!("it is for `{}`, which is not a master", shorten(uri))))
}

/// From when until when a certificate is good.
///
/// # Errors
/// [`codes::TLS`] if it is no certificate.
pub fn validity(certificate_der: &[u8]) -> Result<Validity> {
    let certificate = parse(certificate_der)?;
    let validity = certificate.validity();
    Ok(Validity {
        not_before: Timestamp::from_seconds(validity.not_before.timestamp()),
        not_after: Timestamp::from_seconds(validity.not_after.timestamp()),
    })
}

/// Whether a certificate names itself as its issuer, as a root does.
pub(crate) fn is_root(certificate_der: &[u8]) -> Result<bool> {
    let certificate = parse(certificate_der)?;
    Ok(certificate.subject().as_raw() == certificate.issuer().as_raw())
}

fn wrong(why: impl std::fmt::Display) -> Problem {
    Problem::new(codes::TLS, "a certificate is not one of this grid")
        .because(why)
        .fix("check the address; if it is right, enrol or log in again")
}

fn parse(der: &[u8]) -> Result<X509Certificate<'_>> {
    let (rest, certificate) = X509Certificate::from_der(der).map_err(wrong)?;
    if rest.is_empty() { Ok(certificate) } else { Err(wrong("bytes follow the certificate")) }
}

fn only_uri<'a>(certificate: &'a X509Certificate<'_>) -> Result<&'a str> {
    let names = certificate.subject_alternative_name().map_err(wrong)?;
    let names = names.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
    let mut uris = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    match (uris.next(), uris.next()) {
        (Some(uri), None) => Ok(uri),
        (None, _) => Err(wrong("it names no identity")),
        _ => Err(wrong("it names several identities")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, SanType, SerialNumber};

    fn certificate(uris: &[&str]) -> Vec<u8> {
        let mut params = CertificateParams::default();
        params.subject_alt_names = uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
        params.subject_alt_names.push(SanType::DnsName("spiffe.example".try_into().unwrap()));
        params.serial_number = Some(SerialNumber::from_slice(&[0x80, 1]));
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn a_certificate_is_its_one_uri_of_the_right_grid() {
        let grid = GridName::parse("campus").unwrap();
        let read = peer_identity(&certificate(&["spiffe://campus/node/n1"]), &grid).unwrap();
        assert_eq!(read.identity.to_string(), "node/n1");
        assert_eq!(read.serial_hex, "8001");
        for wrong in [
            &["spiffe://other/node/n1"][..],
            &[],
            &["spiffe://campus/node/n1", "spiffe://campus/master"],
            &["spiffe://campus/node/n1/x"],
        ] {
            assert_eq!(peer_identity(&certificate(wrong), &grid).unwrap_err().code, codes::TLS, "{wrong:?}");
        }
    }

    #[test]
    fn what_is_no_certificate_is_a_problem() {
        let grid = GridName::parse("campus").unwrap();
        let good = certificate(&["spiffe://campus/master"]);
        for n in 0..good.len() {
            assert!(peer_identity(&good[..n], &grid).is_err());
        }
        assert!(peer_identity(&[good.as_slice(), b"x"].concat(), &grid).is_err());
    }

    #[test]
    fn serial_numbers_have_one_written_form() {
        assert_eq!([serial_hex(&[0, 0x80, 1]), serial_hex(&[1])], ["8001", "01"]);
    }
}
