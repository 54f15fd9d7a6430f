//! One function for each decoder, and one for the answers of a service: bytes from anywhere go in, and what must hold of
//! every input is asserted. The same functions serve libFuzzer and the ordinary tests (`tests/fuzz`).

mod objects;
mod pages;
mod text;

/// What a decoder is called, and what is done with an input.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Name of the target and of its folder of inputs.
    pub name: &'static str,
    /// Takes any bytes; fails by a panic.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "answer", run: crate::store::fuzz_answer },
    Target { name: "bytes", run: text::bytes },
    Target { name: "changed_blocks", run: text::changed_blocks },
    Target { name: "exclude", run: text::exclude },
    Target { name: "frame", run: objects::frame },
    Target { name: "hint", run: objects::hint },
    Target { name: "joined_segment", run: objects::joined_segment },
    Target { name: "json", run: objects::json },
    Target { name: "names", run: text::names },
    Target { name: "order", run: text::order },
    Target { name: "pack_footer", run: objects::pack_footer },
    Target { name: "pack_trailer", run: objects::pack_trailer },
    Target { name: "page", run: pages::page },
    Target { name: "record", run: objects::record },
    Target { name: "sealed_object", run: objects::sealed_object },
    Target { name: "segment", run: objects::segment },
];

/// The first byte and the rest: the byte chooses among several things.
fn choose(bytes: &[u8]) -> Option<(u8, &[u8])> {
    bytes.split_first().map(|(first, rest)| (*first, rest))
}
