//! The library of ONNX Runtime: where it may be, and how it gets into the process.
//!
//! Nothing is linked: who has no such library loses nothing. It is loaded once, for the whole process, and stays: its
//! threads and what it registered with the C library would not survive its going. What is not that library is told from
//! it before anything of it runs, as far as that can be told.

use std::ffi::{CStr, CString, OsString, c_void};
use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::sys::{ORT_API_VERSION, OrtApiBase};

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "onnxruntime",
        gst::DebugColorFlags::empty(),
        Some("What ONNX Runtime itself logs"),
    )
});

/// The library, loaded and ready.
pub struct Runtime {
    pub environment: Environment,
    /// As it names itself: `1.31.1`.
    pub version: String,
    pub path: PathBuf,
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Runtime { version, path, .. } = self;
        write!(f, "ONNX Runtime {version} ({})", path.display())
    }
}

/// Why there is no ONNX Runtime.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LibraryError {
    #[error(
        "ONNX Runtime was not found: no libonnxruntime.so in {searched}; property runtime-library and the variable \
         ORT_DYLIB_PATH name one elsewhere"
    )]
    NotFound { searched: String },
    /// Each with what is wrong with it.
    #[error("ONNX Runtime cannot be loaded: {0}")]
    Unusable(String),
    /// A process has one for all.
    #[error(
        "ONNX Runtime cannot be loaded from {}: this process has loaded that of {} already", asked.display(), loaded.display()
    )]
    Another { asked: PathBuf, loaded: PathBuf },
}

/// The library at `asked`, or where none is asked for the first that is found and can be used. A process loads one;
/// after a failure the next call looks again.
pub fn runtime(asked: Option<&Path>) -> Result<&'static Runtime, LibraryError> {
    // Held while it is loaded, so that it is loaded once.
    static LOADED: Mutex<Option<&'static Runtime>> = Mutex::new(None);
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(runtime) = *loaded {
        return match asked {
            Some(asked) if !is_same(asked, &runtime.path) => Err(LibraryError::Another {
                asked: asked.into(),
                loaded: runtime.path.clone(),
            }),
            _ => Ok(runtime),
        };
    }
    let runtime = load_first(&Places::new(asked, |name| std::env::var_os(name)))?;
    Ok(loaded.insert(Box::leak(Box::new(runtime))))
}

fn is_same(one: &Path, other: &Path) -> bool {
    match (one.canonicalize(), other.canonicalize()) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    }
}

fn load_first(places: &Places) -> Result<Runtime, LibraryError> {
    let candidates = places.candidates();
    let mut tried = Vec::new();
    for path in &candidates {
        match load(path) {
            Ok(runtime) => return Ok(runtime),
            Err(reason) => tried.push(format!("{} {reason}", path.display())),
        }
    }
    if tried.is_empty() {
        let searched = places.to_string();
        return Err(LibraryError::NotFound { searched });
    }
    Err(LibraryError::Unusable(tried.join("; ")))
}

/// Where the library may be. What names a file leaves no other choice: another library in its place would be a surprise.
enum Places {
    Named(PathBuf),
    Searched {
        /// Of the dynamic linker.
        library_path: Vec<PathBuf>,
        /// Each with `lib/python3*` in it.
        pythons: Vec<PathBuf>,
    },
}

impl Places {
    /// `variable` gives those of the environment.
    fn new(asked: Option<&Path>, variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let variable = |name| variable(name).filter(|value| !value.is_empty());
        let named = asked.map(Into::into);
        if let Some(path) = named.or_else(|| variable("ORT_DYLIB_PATH").map(Into::into)) {
            return Places::Named(path);
        }
        let listed = |name| {
            let value = variable(name).unwrap_or_default();
            std::env::split_paths(&value).collect::<Vec<PathBuf>>()
        };

        let mut library_path = listed("LD_LIBRARY_PATH");
        for file in entries(Path::new("/etc/ld.so.conf.d")) {
            let lines = fs::read_to_string(file).unwrap_or_default();
            library_path.extend(lines.lines().map(|line| line.trim().into()));
        }
        library_path.extend(["/usr/local/lib", "/usr/lib64", "/usr/lib"].map(PathBuf::from));

        // A virtual environment or an installation comes with the interpreter that PATH leads to.
        let mut pythons: Vec<PathBuf> = ["VIRTUAL_ENV", "CONDA_PREFIX"]
            .into_iter()
            .filter_map(|name| variable(name).map(PathBuf::from))
            .collect();
        let of_path = listed("PATH").into_iter();
        let of_path = of_path.filter(|folder| folder.join("python3").exists());
        pythons.extend(of_path.filter_map(|folder| Some(folder.parent()?.to_owned())));
        pythons.extend(variable("HOME").map(|home| Path::new(&home).join(".local")));
        pythons.push("/usr/local".into());
        Places::Searched {
            library_path: distinct(library_path),
            pythons: distinct(pythons),
        }
    }

    /// Files that may be it, the likeliest first.
    fn candidates(&self) -> Vec<PathBuf> {
        match self {
            Places::Named(path) => vec![path.clone()],
            Places::Searched {
                library_path,
                pythons,
            } => {
                let found = library_path.iter().filter_map(|folder| newest(folder));
                let found = found.map(|(_, path)| path);
                let found = found.chain(pythons.iter().filter_map(|prefix| of_python(prefix)));
                distinct(found.collect())
            }
        }
    }
}

impl fmt::Display for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Places::Named(path) => write!(f, "{}", path.display()),
            Places::Searched {
                library_path,
                pythons,
            } => {
                let list = |folders: &[PathBuf]| {
                    let names = folders.iter().map(|folder| folder.display().to_string());
                    names.collect::<Vec<_>>().join(", ")
                };
                write!(
                    f,
                    "the library path ({}) or a Python installation ({})",
                    list(library_path),
                    list(pythons)
                )
            }
        }
    }
}

fn distinct(paths: Vec<PathBuf>) -> Vec<PathBuf> {
    let mut kept: Vec<PathBuf> = Vec::new();
    for path in paths {
        if path.is_absolute() && !kept.contains(&path) {
            kept.push(path);
        }
    }
    kept
}

/// What is in a folder; nothing where it cannot be read.
fn entries(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path()))
}

/// The library of the highest version in a folder, and that version.
fn newest(folder: &Path) -> Option<(Vec<u32>, PathBuf)> {
    let version = |path: &PathBuf| {
        let name = path.file_name()?.to_str()?;
        let suffix = name.strip_prefix("libonnxruntime.so")?;
        let parts = suffix.split('.').skip(1).map(|part| part.parse().ok());
        parts.collect::<Option<Vec<u32>>>()
    };
    let found = entries(folder).filter_map(|path| Some((version(&path)?, path)));
    found.max()
}

/// The library that comes with the Python package `onnxruntime` (or one of its kin) of an installation.
pub fn of_python(prefix: &Path) -> Option<PathBuf> {
    let folder = prefix.join("lib");
    let versions = entries(&folder).filter(|folder| {
        let name = folder.file_name().unwrap_or_default();
        name.as_bytes().starts_with(b"python3")
    });
    let packages = versions.flat_map(|folder| {
        ["site-packages", "dist-packages"].map(|packages| folder.join(packages))
    });
    let found = packages.filter_map(|folder| newest(&folder.join("onnxruntime/capi")));
    found.max().map(|(_, path)| path)
}

/// The error goes after the file's name.
fn load(path: &Path) -> Result<Runtime, String> {
    let path = path
        .canonicalize()
        .map_err(|error| format!("cannot be read: {error}"))?;
    check_whole(&path)?;
    let base = open(&path)?;
    let (version, api) = interface(base)?;
    if !ort::set_api(api) {
        // Only where the lines below failed once.
        return Err("comes after another one, which could not be used".into());
    }
    let environment = ort::init()
        .with_name("rtcinference")
        .with_telemetry(false)
        .with_logger(Arc::new(log))
        .build()
        .map_err(|error| format!("does not start: {error}"))?;
    Ok(Runtime {
        environment,
        version,
        path,
    })
}

/// The dynamic linker maps what the headers promise, and the process dies of SIGBUS where the file is shorter: a download
/// that was cut off.
fn check_whole(path: &Path) -> Result<(), String> {
    const HEADER: usize = 64;
    let unreadable = |error| format!("cannot be read: {error}");
    let mut file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if !metadata.is_file() {
        return Err("is not a regular file".into());
    }
    let no_library = || "is not a shared library for this machine".to_owned();
    let mut head = Vec::new();
    let most = 1 << 16;
    file.by_ref()
        .take(most)
        .read_to_end(&mut head)
        .map_err(unreadable)?;
    // ELF, 64 bits, little endian: what this is built for.
    if head.len() < HEADER || !head.starts_with(b"\x7fELF\x02\x01") {
        return Err(no_library());
    }
    let number = |at: usize, bytes: usize| {
        let field = head.get(at..at + bytes)?;
        let digits = field.iter().rev();
        Some(digits.fold(0_u64, |value, byte| value << 8 | u64::from(*byte)))
    };
    let segments = || {
        let table = usize::try_from(number(0x20, 8)?).ok()?;
        let size = number(0x36, 2)? as usize;
        let count = number(0x38, 2)? as usize;
        let mut end = 0;
        for index in 0..count {
            let segment = table.checked_add(index * size)?;
            let offset = number(segment.checked_add(0x08)?, 8)?;
            let length = number(segment.checked_add(0x20)?, 8)?;
            end = end.max(offset.checked_add(length)?);
        }
        Some(end)
    };
    match segments() {
        Some(end) if end <= metadata.len() => Ok(()),
        Some(_) => Err("is cut off".into()),
        None => Err(no_library()),
    }
}

#[allow(
    unsafe_code,
    reason = "no crate of a licence that fits wraps these calls"
)]
fn open(path: &Path) -> Result<&'static OrtApiBase, String> {
    let name = CString::new(path.as_os_str().as_bytes()).map_err(|error| error.to_string())?;
    let flags = libc::RTLD_NOW | libc::RTLD_LOCAL | libc::RTLD_NODELETE;
    // SAFETY: the name is a string of C's. What the library does when it is loaded is its own affair, as with any plugin.
    let handle = unsafe { libc::dlopen(name.as_ptr(), flags) };
    if handle.is_null() {
        return Err(format!("cannot be loaded: {}", linker_error()));
    }
    // SAFETY: the handle is open, and the name is a string of C's.
    let entry = unsafe { libc::dlsym(handle, c"OrtGetApiBase".as_ptr()) };
    if entry.is_null() {
        return Err("is not ONNX Runtime: it has no OrtGetApiBase".into());
    }
    // SAFETY: a function of this name has this type since ONNX Runtime 1.0.
    let entry = unsafe {
        std::mem::transmute::<*mut c_void, unsafe extern "system" fn() -> *const OrtApiBase>(entry)
    };
    // SAFETY: it takes nothing and gives something static, or null; the library is never unloaded.
    unsafe { entry().as_ref() }
        .ok_or_else(|| "is not ONNX Runtime: OrtGetApiBase gives nothing".into())
}

#[allow(unsafe_code, reason = "the interface is a table of C functions")]
fn interface(base: &OrtApiBase) -> Result<(String, ort::sys::OrtApi), String> {
    // SAFETY: it gives a static string of C's, or null.
    let version = unsafe {
        let text = (base.GetVersionString)();
        (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned())
    };
    let version = version.ok_or("does not tell its version")?;
    let old = || format!("is ONNX Runtime {version}; 1.{ORT_API_VERSION} or newer is needed");
    let mut numbers = version.split('.').map(|part| part.parse::<u32>().ok());
    let (major, minor) = (numbers.next().flatten(), numbers.next().flatten());
    // Asked first: an old one prints to the terminal that it has no such interface.
    if major != Some(1) || minor < Some(ORT_API_VERSION) {
        return Err(old());
    }
    // SAFETY: what it gives, if anything, is static and has the layout of that version.
    let api = unsafe { (base.GetApi)(ORT_API_VERSION).as_ref() };
    let api = api.ok_or_else(old)?.clone();
    Ok((version, api))
}

#[allow(
    unsafe_code,
    reason = "no crate of a licence that fits wraps this call"
)]
fn linker_error() -> String {
    // SAFETY: it gives a string of this thread's that lasts until the next call of the linker, or null.
    unsafe {
        let text = libc::dlerror();
        if text.is_null() {
            return "no reason is given".into();
        }
        CStr::from_ptr(text).to_string_lossy().into_owned()
    }
}

/// Else ONNX Runtime would write to the terminal. What it calls an error comes back as one, too, and is told where it is
/// known what it means.
fn log(level: LogLevel, category: &str, _id: &str, place: &str, message: &str) {
    let level = match level {
        LogLevel::Verbose => gst::DebugLevel::Log,
        LogLevel::Info => gst::DebugLevel::Debug,
        LogLevel::Warning => gst::DebugLevel::Info,
        LogLevel::Error | LogLevel::Fatal => gst::DebugLevel::Warning,
    };
    gst::log_with_level!(CAT, level, "{category}: {message} ({place})");
}

#[cfg(test)]
mod tests;
