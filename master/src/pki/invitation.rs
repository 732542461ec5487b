//! Tokens that admit somebody once. The text is `plat1.ID.SECRET.CA`: a public id, 256 random bits, and the SHA-256 of
//! the grid's root certificate, by which whoever holds the token knows the master before it has said anything. The
//! master keeps only the SHA-256 of the secret.

use super::{hex, random};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use plat_model::Problem;
use plat_model::id::{Digest, TokenId};
use plat_model::parameters::Secret;
use plat_model::problem::codes;
use sha2::{Digest as _, Sha256};

/// Longest token text in bytes.
const TEXT_MAX: usize = 256;

/// A token as it is shown, once, to whoever asked for it.
#[derive(Debug)]
pub struct Invitation {
    pub id: TokenId,
    /// `plat1.ID.SECRET.CA`
    pub text: Secret,
    /// What is kept of the secret.
    pub secret_hash: Digest,
}

impl Invitation {
    /// A new one, for the grid of this root certificate.
    ///
    /// # Errors
    /// [`codes::INTERNAL`] if the kernel gives no random numbers.
    pub fn new(root_der: &[u8]) -> Result<Self, Problem> {
        let id = TokenId::parse(&hex(&random::<8>()?))?;
        let secret = random::<32>()?;
        let text = format!("plat1.{id}.{}.{}", URL_SAFE_NO_PAD.encode(secret), hex(&Sha256::digest(root_der)));
        Ok(Self { id, text: Secret::new(text), secret_hash: digest(&secret)? })
    }
}

/// What a caller presents: the id, and the hash of the secret.
#[derive(Debug, PartialEq, Eq)]
pub struct Presented {
    pub id: TokenId,
    pub secret_hash: Digest,
}

impl Presented {
    /// Reads a token's text. The secret itself is forgotten here. Comparing hashes of 256 random bits gives an
    /// attacker who measures time nothing: what he can steer is the hash's input, never the hash.
    ///
    /// # Errors
    /// [`codes::UNKNOWN_TOKEN`] if it is not of the form, or was made for another grid than that of `root_der`.
    pub fn parse(text: &str, root_der: &[u8]) -> Result<Self, Problem> {
        let wrong = |why: &str| {
            Problem::new(codes::UNKNOWN_TOKEN, "the token cannot be used here")
                .because(why)
                .fix("copy it whole, as `plat token create` printed it: plat1.…")
        };
        let text = text.trim();
        if text.len() > TEXT_MAX {
            return Err(wrong("it is too long"));
        }
        let parts: Vec<&str> = text.split('.').collect();
        let ["plat1", id, secret, ca] = parts[..] else {
            return Err(wrong("it is not of the form plat1.ID.SECRET.CA"));
        };
        let id = TokenId::parse(id).map_err(|_| wrong("its id is not one"))?;
        let secret = URL_SAFE_NO_PAD.decode(secret).map_err(|_| wrong("its secret is damaged"))?;
        if secret.len() != 32 {
            return Err(wrong("its secret is damaged"));
        }
        if ca != hex(&Sha256::digest(root_der)) {
            return Err(wrong("it was made for another grid"));
        }
        Ok(Self { id, secret_hash: digest(&secret)? })
    }
}

fn digest(secret: &[u8]) -> Result<Digest, Problem> {
    Digest::parse(&hex(&Sha256::digest(secret)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_back_as_its_id_and_hash_in_its_own_grid_only() {
        let token = Invitation::new(b"root").unwrap();
        let read = Presented::parse(&format!("{}\n", token.text.reveal()), b"root").unwrap();
        assert_eq!((read.id, read.secret_hash), (token.id, token.secret_hash));
        let elsewhere = Presented::parse(token.text.reveal(), b"other root").unwrap_err();
        assert_eq!(elsewhere.code, codes::UNKNOWN_TOKEN);
    }

    #[test]
    fn damaged_tokens_are_refused_and_their_secret_is_not_repeated() {
        let token = Invitation::new(b"root").unwrap();
        let text = token.text.reveal();
        for wrong in ["", "plat1", "plat2.a.b.c", &text[..60], &format!("{text}.x"), &"x".repeat(10 << 20)] {
            let problem = Presented::parse(wrong, b"root").unwrap_err();
            assert_eq!(problem.code, codes::UNKNOWN_TOKEN);
            assert!(problem.to_string().len() < 300);
        }
        assert!(!format!("{token:?}").contains(text.split('.').nth(2).unwrap()));
    }
}
