//! Joining a grid, once.

use super::{Enrolled, FORM, Paths, VERSION, certified};
use crate::durable;
use plat_link::tls::RootPin;
use plat_link::{Address, Credentials, DialSettings, Key, Trust, dial};
use plat_model::id::{GridName, NodeId};
use plat_model::identity::Identity as Who;
use plat_model::parameters::Secret;
use plat_model::problem::codes;
use plat_model::{Problem, id};
use plat_wire::ends::node_client;
use plat_wire::limits::IDENTITY_DEADLINE;
use plat_wire::status::to_problem;
use plat_wire::v1::EnrollRequest;
use serde::{Deserialize, Serialize};
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};
use tokio::io::{AsyncRead, AsyncWrite};

/// Form of the file with keys that wait for an answer.
const ENROLLING: &str = "plat-enrolling";

/// What enrolling needs.
#[derive(Debug)]
pub struct Enrolment {
    pub master: Address,
    /// As `plat token create` printed it: `plat1.ID.SECRET.CA`.
    pub token: Secret,
    /// The name to ask for, if the token does not say one.
    pub name: Option<NodeId>,
    /// The agent's data folder; made if it is missing.
    pub data: PathBuf,
}

/// The keys that a token was shown with. A master may have certified them although its answer was lost: it does so again
/// for the same keys only.
#[derive(Serialize, Deserialize)]
struct Enrolling {
    token_hash: String,
    /// PKCS#8 DER, as the next.
    own: Vec<u8>,
    rejoin: Vec<u8>,
}

/// The node's own key and the rejoin key: those that this token was shown with before, or new ones. They are on disk
/// before anybody is asked to certify them.
fn keys(path: &Path, token: &Secret) -> Result<(Key, Key), Problem> {
    let token_hash = durable::hash(token.reveal().trim().as_bytes());
    // Keys that cannot be read are as good as none.
    let before: Option<Enrolling> = durable::read(path, ENROLLING, VERSION).ok().flatten();
    if let Some(before) = before.filter(|before| before.token_hash == token_hash)
        && let (Ok(own), Ok(rejoin)) = (Key::from_pkcs8(&before.own), Key::from_pkcs8(&before.rejoin))
    {
        return Ok((own, rejoin));
    }
    let (own, rejoin) = (Key::generate()?, Key::generate()?);
    let kept = Enrolling { token_hash, own: own.to_pkcs8(), rejoin: rejoin.to_pkcs8() };
    durable::write(path, ENROLLING, VERSION, &kept)?;
    Ok((own, rejoin))
}

/// The name this node has in the grid of the token, if it is enrolled there; nobody is asked.
///
/// # Errors
/// UNKNOWN_TOKEN for a token that is not of the form; WRONG_CA if this node is enrolled in another grid;
/// BAD_STATE_FILE, KEY_FILE of the disk.
pub fn enrolled_already(enrolment: &Enrolment) -> Result<Option<NodeId>, Problem> {
    let pin = pin_of(&enrolment.token)?;
    let paths = Paths::new(&enrolment.data);
    if !paths.enrolled.exists() {
        return Ok(None);
    }
    let enrolled = Enrolled::load(&paths)?;
    let own = Credentials::load(enrolled.grid, &paths.own)?;
    let of_its_grid = own.roots_der().iter().any(|root| RootPin::of(root) == pin);
    if of_its_grid { Ok(Some(enrolled.node)) } else { Err(another_grid()) }
}

/// Makes two keys, has them certified, and writes everything down; the last file written makes the node enrolled. On
/// failure nothing that was there before is removed, and it can be tried again with the same token.
///
/// # Errors
/// EXISTS if this node is enrolled already; UNKNOWN_TOKEN for a token that is not of the form; TLS, WRONG_CA,
/// UNREACHABLE of the link; what the master says of the token; KEY_FILE, BAD_STATE_FILE of the disk.
pub async fn enroll<C, F, IO>(enrolment: Enrolment, connect: C) -> Result<NodeId, Problem>
where
    C: Fn(Address) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = io::Result<IO>> + Send + 'static,
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let paths = Paths::new(&enrolment.data);
    if paths.enrolled.exists() {
        return Err(Problem::new(codes::EXISTS, "this node is enrolled already")
            .because(format!("`{}` exists", paths.enrolled.display()))
            .fix(
                "if it was revoked, or its keys are lost, have an operator revoke it and make a token for its name \
                 (`plat token create --node NAME`), and add --again; to join another grid, use another data folder",
            ));
    }
    join(enrolment, None, connect).await
}

/// Lets a node that was revoked, or whose keys are lost, into its grid again, under its name. What it runs and the usage
/// that is not booked yet stay.
///
/// # Errors
/// BAD_STATE_FILE if this node was never enrolled; BAD_VALUE if it was enrolled under another name than is asked for;
/// those of [`enroll`].
pub async fn enroll_again<C, F, IO>(enrolment: Enrolment, connect: C) -> Result<NodeId, Problem>
where
    C: Fn(Address) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = io::Result<IO>> + Send + 'static,
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let before = Enrolled::load(&Paths::new(&enrolment.data))?;
    if let Some(asked) = enrolment.name.as_ref().filter(|asked| **asked != before.node) {
        return Err(Problem::new(codes::BAD_VALUE, format!("this node cannot be enrolled again as `{asked}`"))
            .because(format!("it is `{}`, and what it runs is that node's", before.node))
            .fix("leave --name out; to join as another node, use another data folder"));
    }
    let enrolment = Enrolment { name: Some(before.node.clone()), ..enrolment };
    join(enrolment, Some(before), connect).await
}

async fn join<C, F, IO>(enrolment: Enrolment, before: Option<Enrolled>, connect: C) -> Result<NodeId, Problem>
where
    C: Fn(Address) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = io::Result<IO>> + Send + 'static,
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let paths = Paths::new(&enrolment.data);
    let pin = pin_of(&enrolment.token)?;
    // Before the token is spent; a lost identity says nothing, and then the grid's name in the answer decides.
    let own = before.as_ref().and_then(|before| Credentials::load(before.grid.clone(), &paths.own).ok());
    if own.is_some_and(|own| !own.roots_der().iter().any(|root| RootPin::of(root) == pin)) {
        return Err(another_grid());
    }
    durable::private_folder(&enrolment.data)?;
    let (own, rejoin) = keys(&paths.enrolling, &enrolment.token)?;
    let channel = dial(&enrolment.master, Trust::Pin(pin), DialSettings::default(), connect)?;
    let request = EnrollRequest {
        token: enrolment.token.reveal().trim().to_owned(),
        name: enrolment.name.as_ref().map(ToString::to_string).unwrap_or_default(),
        csr_der: own.csr_der()?,
        rejoin_csr_der: rejoin.csr_der()?,
    };
    let mut client = node_client(channel);
    let answer = tokio::time::timeout(IDENTITY_DEADLINE, client.enroll(request)).await;
    let answer = answer
        .map_err(|_| Problem::new(codes::DEADLINE, format!("{} did not answer in time", enrolment.master)))?
        .map_err(|status| to_problem(&status))?
        .into_inner();
    let (grid, node) = (GridName::parse(&answer.grid)?, NodeId::parse(&answer.node)?);
    if RootPin::of(&answer.root_der) != pin {
        return Err(Problem::new(codes::WRONG_CA, "the master's answer names another root than the token does")
            .fix("ask whoever made the token which grid it is for"));
    }
    if before.is_some_and(|before| before.grid != grid || before.node != node) {
        return Err(another_grid());
    }
    let roots = vec![answer.root_der];
    let rejoin = Credentials::new(grid.clone(), rejoin, answer.rejoin_chain_der, roots.clone())?;
    let own = Credentials::new(grid.clone(), own, answer.chain_der, roots)?;
    certified(&own, &Who::Node(node.clone()))?;
    certified(&rejoin, &Who::Rejoin(node.clone()))?;
    rejoin.save(&paths.rejoin)?;
    own.save(&paths.own)?;
    let enrolled = Enrolled { grid, node: node.clone(), master: enrolment.master.to_string() };
    durable::write(&paths.enrolled, FORM, VERSION, &enrolled)?;
    // They are in the files of the identity now, and what is left of these is of no use.
    let _unless_gone = std::fs::remove_file(&paths.enrolling);
    Ok(node)
}

fn another_grid() -> Problem {
    Problem::new(codes::WRONG_CA, "the token is not of the grid that this node belongs to")
        .because("what the node runs, and its usage that is not booked yet, are of that grid")
        .fix("ask an operator of that grid for a token; to join another grid, use another data folder")
}

/// The hash of the CA's root that a token carries.
fn pin_of(token: &Secret) -> Result<RootPin, Problem> {
    let wrong = |why: &str| {
        Problem::new(codes::UNKNOWN_TOKEN, "the token cannot be used")
            .because(why)
            .fix("copy it whole, as `plat token create` printed it: plat1.…")
    };
    let text = token.reveal().trim();
    let parts: Vec<&str> = text.split('.').collect();
    let ["plat1", _, _, ca] = parts[..] else {
        return Err(wrong("it is not of the form plat1.ID.SECRET.CA"));
    };
    let digest = id::Digest::parse(ca).map_err(|_| wrong("its last part is not the hash of a CA"))?;
    let mut bytes = [0; 32];
    for (n, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&digest.as_str()[2 * n..2 * n + 2], 16).map_err(|_| wrong("its hash is damaged"))?;
    }
    Ok(RootPin(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pin_is_read_from_the_token_and_a_damaged_token_is_refused_without_repeating_it() {
        let ca = "ab".repeat(32);
        let pin = pin_of(&Secret::new(format!("plat1.0123456789abcdef.c2VjcmV0.{ca}\n"))).unwrap();
        assert_eq!(pin.0, [0xab; 32]);
        for wrong in ["", "plat1.a.secret", "plat2.a.secret.b", &format!("plat1.a.secret.{}", &ca[1..])] {
            let problem = pin_of(&Secret::new(wrong)).unwrap_err();
            assert_eq!(problem.code, codes::UNKNOWN_TOKEN);
            assert!(!problem.to_string().contains("secret."), "{problem}");
        }
    }
}
