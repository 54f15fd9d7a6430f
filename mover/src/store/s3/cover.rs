//! What protects the bytes of an upload on their way.
//!
//! TLS does. Without it the signature covers a SHA-256 of the body, which costs both sides processor time, until the
//! service has shown that it checks a CRC32C, which costs next to nothing and finds what a broken network does. Against somebody who changes bytes on purpose neither helps where nothing proves who answers: such a
//! one says "stored" and stores nothing. What he changes is found by its seal when it is read.

use std::sync::OnceLock;

use aws_smithy_types::base64;

/// How one upload is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Protection {
    /// A CRC32C goes with it.
    pub(super) checksum: bool,
    /// The signature covers the body.
    pub(super) signed: bool,
    /// The service's answer will tell whether it checks.
    pub(super) asks: bool,
}

/// The CRC32C of a body as S3 writes it. The SDK's own is a trailer or nothing, by its settings.
#[expect(clippy::big_endian_bytes, reason = "S3 wants it so")]
pub(super) fn checksum(body: &[u8]) -> String {
    let sum = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, body);
    base64::encode((sum as u32).to_be_bytes())
}

/// What is known of the service.
#[derive(Debug)]
pub(super) struct Cover {
    tls: bool,
    /// The user wants a checksum with each upload.
    always: bool,
    /// Whether the service checks a CRC32C, once its first answer has shown it.
    checks: OnceLock<bool>,
}

impl Cover {
    pub(super) fn new(tls: bool, always: bool) -> Self {
        Self { tls, always, checks: OnceLock::new() }
    }

    /// For the next upload.
    pub(super) fn next(&self) -> Protection {
        let checks = self.checks.get().copied();
        let (checksum, signed) = match checks {
            _ if self.tls => (false, false),
            Some(true) => (true, false),
            Some(false) => (false, true),
            None => (true, true),
        };
        let asks = !self.tls && checks.is_none();
        Protection { checksum: checksum || self.always, signed, asks }
    }

    /// The service has taken an upload, and named the checksum of what it has, or not.
    pub(super) fn taken(&self, sent: Protection, names_checksum: bool) {
        if sent.asks {
            self.checks.get_or_init(|| names_checksum);
        }
    }

    /// The service has clearly refused an upload. True if the checksum may be why, and another try without is due.
    pub(super) fn refused(&self, sent: Protection, status: Option<u16>, code: Option<&str>) -> bool {
        // The body that came was another one: the service knows checksums.
        let differs = code.is_none_or(|code| code.contains("Digest") || code.contains("Mismatch"));
        let due = sent.asks && !self.always && !differs && matches!(status, Some(400 | 501));
        if due {
            self.checks.get_or_init(|| false);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn protection(checksum: bool, signed: bool, asks: bool) -> Protection {
        Protection { checksum, signed, asks }
    }

    #[test]
    fn the_checksum_is_what_s3_means() {
        // "123456789" has the CRC32C 0xe3069283 (RFC 3720 names the polynomial, its check value is common knowledge).
        assert_eq!(checksum(b"123456789"), "4waSgw==");
    }

    #[test]
    fn tls_is_enough() {
        assert_eq!(Cover::new(true, false).next(), protection(false, false, false));
        assert_eq!(Cover::new(true, true).next(), protection(true, false, false));
    }

    #[test]
    fn the_signature_covers_the_body_until_the_service_checks() {
        let cover = Cover::new(false, false);
        let first = cover.next();
        assert_eq!(first, protection(true, true, true));
        cover.taken(first, true);
        assert_eq!(cover.next(), protection(true, false, false));
    }

    #[test]
    fn a_service_that_names_no_checksum_gets_signed_bodies() {
        let cover = Cover::new(false, false);
        cover.taken(cover.next(), false);
        assert_eq!(cover.next(), protection(false, true, false));
        let always = Cover::new(false, true);
        always.taken(always.next(), false);
        assert_eq!(always.next(), protection(true, true, false));
    }

    #[test]
    fn a_clear_refusal_is_tried_without_a_checksum_once() {
        let cover = Cover::new(false, false);
        let first = cover.next();
        let other =
            [(None, None), (Some(400), None), (Some(400), Some("BadDigest")), (Some(503), Some("SlowDown"))];
        for (status, code) in other {
            assert!(!cover.refused(first, status, code), "{status:?} {code:?}");
        }
        assert!(cover.refused(first, Some(501), Some("NotImplemented")));
        let second = cover.next();
        assert_eq!(second, protection(false, true, false));
        assert!(!cover.refused(second, Some(501), Some("NotImplemented")));
        let always = Cover::new(false, true);
        assert!(!always.refused(always.next(), Some(400), Some("InvalidArgument")));
    }
}
