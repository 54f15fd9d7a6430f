//! An S3 service whose answers do not end is given up, in the memory that the program has when nothing is said.
//!
//! Needs Python for the peak of memory, and the program beside the tests (`cargo build -p carrack-mover`).

use std::process::Command;

use carrack_tests::hostile::measured_command;
use carrack_tests::hostile::scene::PEAK_KIB;
use carrack_tests::liar::{Liar, Lie};
use carrack_tests::place::program;

/// A guard against what never ends; what is asked again is given up after some twenty.
const SECONDS: u32 = 100;

fn init(endpoint: &str) -> Command {
    let mut command = Command::new(program());
    command.arg("init").env_clear().env("CARRACK_PASSWORD", "correct").env("AWS_REGION", "us-east-1");
    command.env("CARRACK_REPOSITORY", "s3://bucket/x").env("CARRACK_S3_ENDPOINT", endpoint);
    command.env("AWS_ACCESS_KEY_ID", "any").env("AWS_SECRET_ACCESS_KEY", "any");
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_without_end_take_no_memory() {
    for (lie, code, words) in [
        (Lie::EndlessListing, 12, "the answer is longer than 8388608 bytes"),
        (Lie::EndlessPut, 12, "the answer is longer than 65536 bytes"),
        (Lie::EndlessRefusal, 2, "the answer is longer than 65536 bytes"),
    ] {
        let liar = Liar::start(lie).await.expect("it listens");
        let command = init(&liar.url());
        let run = tokio::task::spawn_blocking(move || measured_command(&command, SECONDS));
        let outcome = run.await.expect("no panic").expect("it ends");
        assert_eq!(outcome.code, Some(code), "{lie:?}: {outcome:?}");
        assert!(outcome.printed.err.contains(words), "{lie:?}: {outcome:?}");
        assert!(outcome.peak_kib <= PEAK_KIB, "{lie:?}: {outcome:?}");
    }
}
