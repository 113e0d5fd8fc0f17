//! What makes two models the same: their files, as they are now, and what is asked of them.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{ModelError, ModelOptions};
use crate::engine::choice::{Device, EngineChoice};
use crate::engine::side_car;

/// What makes two requests ask for the same model.
#[derive(PartialEq, Eq, Hash)]
pub(super) struct Identity {
    /// With paths as the file system has them.
    options: ModelOptions,
    /// None where there is no file.
    model: Option<Version>,
    labels: Option<Version>,
    /// Two links to one model may have two of them.
    side_car: Option<(PathBuf, Version)>,
}

/// Tells a file from what replaces it.
#[derive(PartialEq, Eq, Hash)]
pub(super) struct Version {
    modified: Option<SystemTime>,
    length: u64,
}

impl Identity {
    pub(super) fn new(options: &ModelOptions) -> Result<Self, ModelError> {
        let mut options = options.clone();
        let (model, side_car) = match options.engine {
            EngineChoice::Kserve => (None, None),
            _ => {
                let mut side_car = None;
                if let Some(mut path) = beside(&options.path) {
                    let version = Version::of(&mut path)?;
                    side_car = Some((path, version));
                }
                (Some(Version::of(&mut options.path)?), side_car)
            }
        };
        let labels = options.labels.as_mut().map(Version::of).transpose()?;
        Ok(Identity {
            options,
            model,
            labels,
            side_car,
        })
    }
}

impl Version {
    /// Also makes the path canonical.
    pub(super) fn of(path: &mut PathBuf) -> Result<Self, ModelError> {
        let metadata = path.metadata().map_err(read_error(path))?;
        if !metadata.is_file() {
            // Reading a device or a pipe might never end.
            let source = io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file");
            return Err(read_error(path)(source));
        }
        *path = path.canonicalize().map_err(read_error(path))?;
        Ok(Version {
            modified: metadata.modified().ok(),
            length: metadata.len(),
        })
    }
}

/// What makes two models the same to an engine.
#[derive(PartialEq, Eq, Hash)]
pub(super) struct InstanceKey {
    pub path: PathBuf,
    pub version: Version,
    pub engine: &'static str,
    pub device: Device,
    pub threads: usize,
}

/// The `.modelinfo` of the model at `path`, if there is one.
pub(super) fn beside(path: &Path) -> Option<PathBuf> {
    side_car::places(path)
        .into_iter()
        .find(|place| place.is_file())
}

pub(super) fn read_error(path: &Path) -> impl Fn(io::Error) -> ModelError {
    let path = path.to_owned();
    move |source| ModelError::Read {
        path: path.clone(),
        source,
    }
}
