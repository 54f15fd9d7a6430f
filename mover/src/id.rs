//! Identifiers: fixed-length bytes with a hexadecimal form.

use std::fmt;

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $length:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
        pub struct $name(pub [u8; $length]);

        impl $name {
            /// How many bytes it has.
            pub const LENGTH: usize = $length;

            /// Reads the full hexadecimal form; `None` for anything else.
            pub fn from_hex(text: &str) -> Option<Self> {
                let mut bytes = [0; $length];
                hex::decode_to_slice(text, &mut bytes).ok()?;
                // A name has one form only.
                let is_lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
                is_lower.then_some(Self(bytes))
            }

            /// The full hexadecimal form, lower case.
            pub fn to_hex(self) -> String {
                hex::encode(self.0)
            }

            /// The first eight hexadecimal digits, for people.
            pub fn short(self) -> String {
                hex::encode(&self.0[..4])
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.to_hex())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.to_hex())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.to_hex())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                Self::from_hex(&text).ok_or_else(|| {
                    serde::de::Error::custom(concat!("expected ", stringify!($length), " bytes in hexadecimal"))
                })
            }
        }
    };
}

identifier!(
    /// A repository, drawn at random when it is made.
    RepositoryId,
    16
);
identifier!(
    /// Contents, by keyed BLAKE3: equal contents in one repository have equal ids, and nobody without the key can
    /// tell which.
    ChunkId,
    32
);
identifier!(
    /// A pack: the eight bytes of its session's tag, then eight random ones.
    PackId,
    16
);
identifier!(
    /// A source over time (a host with its paths, or a volume), by a keyed hash.
    LineageId,
    8
);
identifier!(
    /// The random part of a session's name.
    SessionNonce,
    16
);
identifier!(
    /// A random name for objects that have no other (keys, index segments, collections, markers).
    RandomId,
    16
);

impl PackId {
    /// The tag of the session that wrote the pack.
    pub fn tag(self) -> SessionTag {
        let mut tag = [0; 8];
        tag.copy_from_slice(&self.0[..8]);
        SessionTag(tag)
    }
}

identifier!(
    /// The first eight bytes of a session's nonce: the part that its packs' names begin with.
    SessionTag,
    8
);

impl SessionNonce {
    /// The tag that the session's packs carry.
    pub fn tag(self) -> SessionTag {
        let mut tag = [0; 8];
        tag.copy_from_slice(&self.0[..8]);
        SessionTag(tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_one_text_form() {
        let id = SessionTag([0xab, 0, 1, 2, 3, 4, 5, 0xff]);
        assert_eq!(SessionTag::from_hex("ab000102030405ff"), Some(id));
        assert_eq!(id.to_hex(), "ab000102030405ff");
        for other in [
            "AB000102030405ff",
            "ab000102030405fF",
            "ab000102030405f",
            "ab000102030405ff0",
            "ab000102030405fg",
            "",
        ] {
            assert_eq!(SessionTag::from_hex(other), None, "{other}");
        }
    }
}
