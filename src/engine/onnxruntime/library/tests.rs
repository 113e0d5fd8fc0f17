use std::process::Command;

use super::*;

const PYTHON: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/.venv");

fn real() -> PathBuf {
    let found = of_python(Path::new(PYTHON)).expect("scripts/setup has installed onnxruntime");
    found.canonicalize().unwrap()
}

/// What `load` says against a file.
fn objection(path: &Path) -> String {
    load(path).err().expect("it is of no use")
}

/// A library made of C.
fn compiled(folder: &Path, name: &str, source: &str) -> PathBuf {
    let (code, library) = (folder.join("source.c"), folder.join(name));
    fs::write(&code, source).unwrap();
    let mut compiler = Command::new("cc");
    compiler
        .args(["-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(&code);
    assert!(compiler.status().unwrap().success());
    library
}

/// A library with nothing in it but the way in.
fn of_version(folder: &Path, version: &str) -> PathBuf {
    let source = r#"
        struct base { const void *(*api)(unsigned); const char *(*version)(void); };
        static const void *api(unsigned number) { return 0; }
        static const char *version(void) { return "VERSION"; }
        static const struct base base = { api, version };
        const void *OrtGetApiBase(void) { return &base; }
    "#;
    let name = format!("libonnxruntime.so.{version}");
    compiled(folder, &name, &source.replace("VERSION", version))
}

#[test]
fn the_library_of_a_python_installation_is_loaded_and_no_other_after_it() {
    let runtime = runtime(Some(&real())).unwrap();
    assert_eq!(runtime.path, real());
    let name = real().display().to_string();
    assert!(
        name.ends_with(&runtime.version),
        "{name} {}",
        runtime.version
    );
    let again = super::runtime(Some(&real())).unwrap();
    assert!(std::ptr::eq(again, runtime));
    assert!(std::ptr::eq(super::runtime(None).unwrap(), runtime));
    let other = super::runtime(Some(Path::new("/nowhere/libonnxruntime.so")));
    let other = other.err().unwrap().to_string();
    assert!(
        other.contains("/nowhere/libonnxruntime.so: this process has loaded"),
        "{other}"
    );
    assert!(other.contains(&name), "{other}");
}

#[test]
fn what_is_not_the_library_is_told_and_does_no_harm() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    let whole = fs::read(real()).unwrap();
    let cases = [
        (folder.join("missing.so"), "cannot be read: No such file"),
        (folder.into(), "is not a regular file"),
        ("/dev/zero".into(), "is not a regular file"),
        (file("text.so", b"no library\n"), "is not a shared library"),
        (file("empty.so", b""), "is not a shared library"),
        (file("header.so", &whole[..100]), "is not a shared library"),
        (file("half.so", &whole[..whole.len() / 2]), "is cut off"),
        (
            file(
                "foreign.so",
                &[&whole[..0x12], b"\xf7\0", &whole[0x14..]].concat(),
            ),
            "cannot be loaded: ",
        ),
        (
            compiled(folder, "other.so", "int unrelated;"),
            "has no OrtGetApiBase",
        ),
        (
            compiled(folder, "null.so", "void *OrtGetApiBase(void) { return 0; }"),
            "gives nothing",
        ),
        (
            of_version(folder, "1.16.3"),
            "is ONNX Runtime 1.16.3; 1.17 or newer is needed",
        ),
        (
            of_version(folder, "0.17"),
            "is ONNX Runtime 0.17; 1.17 or newer is needed",
        ),
        (
            of_version(folder, "unheard of"),
            "is ONNX Runtime unheard of; 1.17 or newer is needed",
        ),
        (
            of_version(folder, "1.99.0"),
            "is ONNX Runtime 1.99.0; 1.17 or newer is needed",
        ),
    ];
    for (path, expected) in cases {
        let objection = objection(&path);
        assert!(
            objection.contains(expected),
            "{}: {objection}",
            path.display()
        );
    }
}

#[test]
fn any_bytes_in_the_headers_are_borne() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mutated.so");
    let whole = fs::read(real()).unwrap();
    let mut random = fastrand::Rng::with_seed(6);
    for _ in 0..500 {
        let mut head = whole[..random.usize(0..2048)].to_vec();
        for _ in 0..random.usize(1..20) {
            if let Some(byte) = head.get_mut(random.usize(6..700)) {
                *byte = random.u8(..);
            }
        }
        fs::write(&path, &head).unwrap();
        let _ = check_whole(&path);
    }
}

#[test]
fn one_that_cannot_be_used_does_not_keep_the_next_from_being_found() {
    let folder = tempfile::tempdir().unwrap();
    let old = of_version(folder.path(), "1.2.0");
    let places = Places::Searched {
        library_path: vec![folder.path().into()],
        pythons: vec![PYTHON.into()],
    };
    assert_eq!(places.candidates()[0], old);
    let runtime = load_first(&places).unwrap();
    assert_eq!(runtime.path, real());
}

#[test]
fn where_nothing_is_found_the_error_names_all_places() {
    let places = Places::Searched {
        library_path: vec!["/nowhere/lib".into()],
        pythons: vec!["/nowhere/venv".into(), "/nowhere/conda".into()],
    };
    let error = load_first(&places).err().unwrap().to_string();
    for place in [
        "/nowhere/lib",
        "/nowhere/venv",
        "/nowhere/conda",
        "ORT_DYLIB_PATH",
    ] {
        assert!(error.contains(place), "{error}");
    }
}

#[test]
fn the_newest_library_of_a_folder_and_of_a_python_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let library = |name: &str| {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, b"").unwrap();
        path
    };
    for name in [
        "libonnxruntime.so",
        "libonnxruntime.so.1.9.0",
        "libonnxruntime.so.1.20.x",
        "libonnxruntime_providers_shared.so",
    ] {
        library(name);
    }
    let newest = library("libonnxruntime.so.1.21.0");
    assert_eq!(super::newest(folder.path()).unwrap().1, newest);

    let capi = "onnxruntime/capi/libonnxruntime.so";
    library(&format!("lib/python3.9/site-packages/{capi}.1.19.2"));
    let newest = library(&format!("lib/python3.11/site-packages/{capi}.1.31.1"));
    library(&format!("lib/python3/dist-packages/{capi}.1.21.0"));
    assert_eq!(of_python(folder.path()), Some(newest));
    assert_eq!(of_python(Path::new("/nowhere")), None);
}

/// An environment with one variable in it.
fn with<'a>(name: &'a str, value: &'a Path) -> impl Fn(&str) -> Option<OsString> + 'a {
    move |asked| (asked == name).then(|| value.into())
}

#[test]
fn a_library_that_is_named_is_the_only_one_tried() {
    let (named, other) = (Path::new("/nowhere/one.so"), Path::new("/nowhere/two.so"));
    let by_property = Places::new(Some(named), with("ORT_DYLIB_PATH", other));
    assert_eq!(by_property.candidates(), [named]);
    let by_variable = Places::new(None, with("ORT_DYLIB_PATH", other));
    assert_eq!(by_variable.candidates(), [other]);
}

#[test]
fn libraries_and_interpreters_are_looked_for_where_the_environment_leads() {
    let nothing = Places::new(None, |_| None).candidates();
    let folder = tempfile::tempdir().unwrap();
    let library = of_version(folder.path(), "1.20.0");
    let found = Places::new(None, with("LD_LIBRARY_PATH", folder.path())).candidates();
    assert_eq!((&found[0], &found[1..]), (&library, &nothing[..]));

    let bin = Path::new(PYTHON).join("bin");
    for places in [
        Places::new(None, with("VIRTUAL_ENV", Path::new(PYTHON))),
        Places::new(None, with("PATH", &bin)),
    ] {
        let found = places.candidates();
        assert!(
            found.contains(&of_python(Path::new(PYTHON)).unwrap()),
            "{found:?}"
        );
    }
}
