//! Certificates: what the master signs, and the tokens that admit a first signature. Who may have which certificate is
//! decided in the plan; nothing here decides.
//!
//! [`ca`] is the only file that reads the CA's key.

pub mod ca;
pub mod csr;
pub mod invitation;

use plat_model::Problem;
use plat_model::problem::codes;
use std::fmt::Write;

/// Random bytes from the kernel.
///
/// # Errors
/// [`codes::INTERNAL`] if the kernel gives none.
pub fn random<const N: usize>() -> Result<[u8; N], Problem> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .map_err(|e| Problem::new(codes::INTERNAL, "the kernel gives no random numbers").because(e))?;
    Ok(bytes)
}

/// Lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Serial number of a certificate: 16 random bytes. The first one is 1 to 127, so that DER neither drops nor adds a
/// byte and the number has one spelling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Serial([u8; 16]);

impl Serial {
    /// # Errors
    /// [`codes::INTERNAL`] if the kernel gives no random numbers.
    pub fn random() -> Result<Self, Problem> {
        let mut bytes: [u8; 16] = random()?;
        bytes[0] = bytes[0] % 127 + 1;
        Ok(Self(bytes))
    }

    /// Reads what [`Serial::hex`] wrote.
    ///
    /// # Errors
    /// [`codes::INTERNAL`] if it is something else.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let wrong = || Problem::new(codes::INTERNAL, "a serial number is not one").because(text);
        let byte = |n: usize| text.get(2 * n..2 * n + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
        let mut bytes = [0; 16];
        for (n, to) in bytes.iter_mut().enumerate() {
            *to = byte(n).ok_or_else(wrong)?;
        }
        let serial = Self(bytes);
        if serial.hex() == text { Ok(serial) } else { Err(wrong()) }
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// As the state keeps it.
    pub fn hex(&self) -> String {
        hex(&self.0)
    }
}
