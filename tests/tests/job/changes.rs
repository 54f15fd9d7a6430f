//! Devices whose storage is to tell what has changed, and why it is not asked or not believed. That it is asked and believed is
//! shown in clusters, with a real service.

use std::fs;

use carrack_proto::{
    BackupOutput, ChangeTracking, Changes, Keys, ListSource, MetadataService, Output, Place as Volume,
    Source, Task, VolumeState,
};
use carrack_tests::{server::NOWHERE, trees::noise};

use crate::place::{HOST, Place, of, to};

const BYTES: usize = 2 << 20;

/// An image, its writer bundle, and snapshots that its storage would have made.
struct Device {
    place: Place,
    source: Source,
    keys: Keys,
}

impl Device {
    fn new() -> Self {
        let place = Place::new();
        place.initialised();
        fs::write(place.path("image"), noise(1, BYTES)).expect("writes");
        let source = Source { host: HOST.to_owned(), place: Volume::Device(place.text("image")) };
        let keys = place.bundle(source.clone());
        Self { place, source, keys }
    }

    /// A service that is not there, and knows of these snapshots.
    fn service(&self, bases: &[&str]) -> ListSource {
        fs::write(self.place.path("token"), "token").expect("writes");
        ListSource::Service(MetadataService {
            address: NOWHERE.into(),
            ca_file: self.place.text("token"),
            token_file: self.place.text("token"),
            namespace: "carrack".into(),
            snapshot: "lent".into(),
            bases: bases.iter().map(|&base| base.to_owned()).collect(),
        })
    }

    fn backup(&self, state: &VolumeState, list: ListSource) -> BackupOutput {
        self.backup_with(state, list, 0)
    }

    fn backup_with(&self, state: &VolumeState, list: ListSource, code: i32) -> BackupOutput {
        let mut task = of(self.source.clone());
        task.changes = Some(ChangeTracking { state: state.clone(), list: Some(list) });
        let told = self.place.run_with(self.keys.clone(), Task::Backup(task), code);
        match told.output {
            Some(Output::Backup(output)) => output,
            other => panic!("no counts: {other:?}"),
        }
    }

    /// A backup that reads everything, and the reason that it gives.
    fn whole(&self, state: &VolumeState, list: ListSource) -> String {
        let output = self.backup(state, list);
        assert_eq!(output.read_bytes, BYTES as u64, "{output:?}");
        match output.changes {
            Some(Changes::Unknown { because }) => because,
            other => panic!("it was not all read: {other:?}"),
        }
    }
}

fn state(object: &str, taken: i64) -> VolumeState {
    VolumeState {
        driver: "csi.example".into(),
        volume: "v".into(),
        snapshot: format!("handle of {object}"),
        object: object.into(),
        taken,
    }
}

#[test]
fn all_is_read_where_there_is_no_list_to_go_by() {
    let device = Device::new();
    let unavailable = || ListSource::Unavailable { because: "no token for it".into() };
    let service = |bases: &[&str]| device.service(bases);
    let (first, second) = (state("a", 1), state("b", 2));
    assert!(device.whole(&first, service(&[])).contains("the first snapshot"));
    assert_eq!(device.whole(&second, unavailable()), "no token for it");
    // The last one is b.
    assert!(device.whole(&state("c", 2), service(&["b"])).contains("of a later state"));
    assert!(device.whole(&state("d", 1), service(&["c"])).contains("of a later state"));
    assert!(device.whole(&state("e", 5), service(&["a", "b"])).contains("is not there any more"));
    let other = VolumeState { volume: "w".into(), ..state("f", 6) };
    assert!(device.whole(&other, service(&["e"])).contains("of another volume"));
    let because = device.whole(&VolumeState { volume: "w".into(), ..state("g", 7) }, service(&["f"]));
    assert!(because.contains(NOWHERE), "{because}");
}

#[test]
fn the_same_snapshot_again_is_read_no_more() {
    let device = Device::new();
    let only = state("a", 1);
    device.backup(&only, device.service(&[]));
    let again = device.backup(&only, device.service(&[]));
    assert_eq!((again.read_bytes, again.changes), (0, Some(Changes::Listed { bytes: 0 })));
    // A handle that was given twice is another snapshot.
    let reused = VolumeState { object: "b".into(), taken: 2, ..only };
    assert!(device.whole(&reused, device.service(&[])).contains("is not there any more"));
}

#[test]
fn a_damaged_parent_costs_the_list_and_not_the_backup() {
    for (damage, words, code) in [
        // A parent that cannot be read is a problem that the result names.
        (Damage::Gone, "could not be used", 3),
        // The first of the pages is found from the last one, which is whole.
        (Damage::Flipped, "by the list it failed", 0),
    ] {
        let device = Device::new();
        // So large that its runs have pages of their own.
        let image = noise(2, 48 << 20);
        fs::write(device.place.path("image"), &image).expect("writes");
        let only = state("a", 1);
        device.backup(&only, device.service(&[]));
        damage.to_pages(&device.place);
        let output = device.backup_with(&only, device.service(&[]), code);
        let Some(Changes::Unknown { because }) = &output.changes else { panic!("{output:?}") };
        assert!(because.contains(words), "{because}");
        assert_eq!(output.read_bytes, image.len() as u64);
        fs::write(device.place.path("target"), noise(3, image.len())).expect("writes");
        device.place.run(Task::Restore(to(Volume::Device(device.place.text("target")))), 0);
        assert!(fs::read(device.place.path("target")).expect("reads") == image, "it came back otherwise");
    }
}

enum Damage {
    Gone,
    Flipped,
}

impl Damage {
    /// The pack with the pages is the smallest one.
    fn to_pages(&self, place: &Place) {
        let files = |directory| fs::read_dir(directory).expect("reads").map(|found| found.expect("reads"));
        let packs = files(place.path("repository/packs")).flat_map(|below| files(below.path()));
        let pages = packs.min_by_key(|pack| pack.metadata().expect("is there").len()).expect("a pack").path();
        match self {
            Self::Gone => fs::remove_file(pages).expect("removes"),
            Self::Flipped => {
                let mut bytes = fs::read(&pages).expect("reads");
                bytes[100] ^= 1;
                fs::write(pages, bytes).expect("writes");
            }
        }
    }
}
