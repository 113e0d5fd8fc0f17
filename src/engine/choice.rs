//! Which engine the user wants, and on what it is to run.

use std::fmt;
use std::str::FromStr;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum EngineChoice {
    /// ONNX Runtime where it can be had, else the embedded one.
    #[default]
    Auto,
    Rten,
    OnnxRuntime,
    /// On servers.
    Kserve,
}

/// What an engine runs on. The number is the one CUDA gives the GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Device {
    #[default]
    Cpu,
    Cuda(u16),
    TensorRt(u16),
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(number) => write!(f, "cuda:{number}"),
            Device::TensorRt(number) => write!(f, "tensorrt:{number}"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no device; there are cpu, cuda:N and tensorrt:N, N the number of a GPU from 0")]
pub struct UnknownDevice(String);

impl FromStr for Device {
    type Err = UnknownDevice;

    fn from_str(text: &str) -> Result<Self, UnknownDevice> {
        let number = |digits: &str| {
            // `parse` takes a sign too, which no number of a GPU has.
            let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
            digits.parse().ok().filter(|_| plain)
        };
        let device = match text.split_once(':') {
            None if text == "cpu" => Some(Device::Cpu),
            Some(("cuda", digits)) => number(digits).map(Device::Cuda),
            Some(("tensorrt", digits)) => number(digits).map(Device::TensorRt),
            _ => None,
        };
        device.ok_or_else(|| UnknownDevice(text.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_as_they_are_written() {
        for device in [Device::Cpu, Device::Cuda(0), Device::TensorRt(11)] {
            assert_eq!(device.to_string().parse(), Ok(device));
        }
        for nonsense in [
            "",
            "gpu",
            "cuda",
            "cuda:",
            "cuda:+1",
            "cuda:-1",
            "CPU",
            "cpu:0",
            "cuda:70000",
        ] {
            let refused = nonsense.parse::<Device>().unwrap_err().to_string();
            assert!(refused.contains("cpu, cuda:N and tensorrt:N"), "{refused}");
        }
    }
}
