//! A short text that changes when what it was made from does. It guards against work done twice, not against anybody:
//! whoever could make two inputs collide owns both, so 128 bits of FNV-1a are enough and no cryptography is needed.

use serde::Serialize;

const OFFSET: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;

/// 32 hexadecimal digits over the JSON form of `value`, whose maps must be ordered.
pub(crate) fn of(value: &impl Serialize) -> String {
    let bytes = serde_json::to_vec(value).unwrap_or_default();
    let hash = bytes.iter().fold(OFFSET, |hash, byte| (hash ^ u128::from(*byte)).wrapping_mul(PRIME));
    format!("{hash:032x}")
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_fingerprint_changes_with_any_part_of_its_value() {
        let one = super::of(&("a", "bc"));
        assert_eq!(one.len(), 32);
        assert_ne!(one, super::of(&("ab", "c")));
        assert_eq!(one, super::of(&("a", "bc")));
    }
}
