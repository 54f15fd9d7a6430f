use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::source::roots::absolute;

#[test]
fn a_path_has_one_form() {
    let here = std::env::current_dir().unwrap();
    let parent = here.parent().unwrap();
    for typed in ["src", "src/", "./src", "src/.", "src/../src", "src//", "src/source/../../src/"] {
        assert_eq!(absolute(Path::new(typed)).unwrap(), here.join("src"), "{typed}");
    }
    assert_eq!(absolute(Path::new(".")).unwrap(), here);
    assert_eq!(absolute(Path::new("..")).unwrap(), parent);
    for (typed, form) in
        [("/", "/"), ("//", "/"), ("/..", "/"), ("//no/./such//x/", "/no/such/x"), ("/no/../y", "/y")]
    {
        let form = Path::new(form);
        assert_eq!(absolute(Path::new(typed)).unwrap(), form, "{typed}");
        assert_eq!(absolute(form).unwrap(), form);
    }
    absolute(Path::new("")).unwrap_err();
}

/// A name may lie about where it leads: then what is there counts.
#[test]
fn behind_a_link_the_file_system_is_believed() {
    let dir = tempfile::tempdir().unwrap();
    let top = dir.path().canonicalize().unwrap();
    fs::create_dir_all(top.join("real/deep")).unwrap();
    fs::create_dir(top.join("beside")).unwrap();
    symlink("real/deep", top.join("link")).unwrap();
    symlink("beside", top.join("near")).unwrap();
    symlink("nowhere", top.join("dangling")).unwrap();
    let form = |typed: &str| absolute(&PathBuf::from(format!("{}/{typed}", top.display()))).unwrap();
    assert_eq!(form("link"), top.join("link"), "a link that is named stays a link");
    assert_eq!(form("link/x"), top.join("link/x"), "names on the way stay as typed");
    assert_eq!(form("link/../y"), top.join("real/y"), "not what lies beside the link");
    assert_eq!(form("link/.."), top.join("real"));
    assert_eq!(form("near/../y"), top.join("y"), "here names tell the truth");
    for typed in ["link/", "link/.", "link//"] {
        assert_eq!(form(typed), top.join("real/deep"), "{typed}");
    }
    assert_eq!(form("dangling/"), top.join("dangling"));
}
