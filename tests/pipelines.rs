//! Every description in pipelines/ does what its header says, run as a user runs it: by `scripts/run -m`.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    time::Duration,
};

use regex::Regex;

/// How long a description may take until it has shown what it promises.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn every_description_shows_what_its_header_promises() {
    let mut files: Vec<PathBuf> = fs::read_dir(root().join("pipelines"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|ending| ending == "launch"))
        .collect();
    files.sort();
    assert!(!files.is_empty());
    let wrong: Vec<String> = files.iter().filter_map(|file| check(file).err()).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn unknown_key_is_refused_with_the_known_ones() {
    let (status, said) = run(&["pipelines/ball.launch", "FRAME=1"]);
    assert!(!status.success());
    assert!(
        said.contains("FRAME") && said.contains("FRAMES MODEL"),
        "{said}"
    );
}

#[test]
fn quotes_and_line_breaks_are_as_in_a_shell() {
    let file = std::env::temp_dir().join(format!("quotes-{}.launch", std::process::id()));
    fs::write(
        &file,
        "# var NAME=plain\n# a comment\nvideotestsrc num-buffers=1\n  ! 'video/x-raw,  width=64'\n\n  ! fakesink name=\"${NAME}\"\n",
    )
    .unwrap();
    let (status, said) = run(&["-m", file.to_str().unwrap(), "NAME=a  b c"]);
    fs::remove_file(&file).unwrap();
    assert!(status.success(), "{said}");
    assert!(said.contains("element \"a  b c\""), "{said}");
}

/// What a description's header lines say.
struct Header {
    /// A process that has said all of these has shown what it promises.
    output: Vec<Regex>,
    /// The exit code to wait for; none: it goes on until it is ended.
    exit: Option<i32>,
    /// It listens, so it gets a port that is free.
    listens: bool,
}

impl Header {
    fn parse(text: &str) -> Result<Self, String> {
        for word in ["# shows ", "# needs ", "# expect "] {
            if !text.lines().any(|line| line.starts_with(word)) {
                return Err(format!("has no line \"{word}\""));
            }
        }
        let mut header = Self {
            output: Vec::new(),
            exit: None,
            listens: text.contains("\n# var LISTEN="),
        };
        for expected in text
            .lines()
            .filter_map(|line| line.strip_prefix("# expect "))
        {
            let expected = expected.trim();
            match expected.strip_prefix("exit ") {
                Some(code) => {
                    header.exit = Some(code.parse().map_err(|_| format!("no exit code: {code}"))?)
                }
                None => header
                    .output
                    .push(Regex::new(expected).map_err(|error| error.to_string())?),
            }
        }
        Ok(header)
    }
}

fn check(file: &Path) -> Result<(), String> {
    let name = file.file_name().unwrap().to_string_lossy();
    let header =
        Header::parse(&fs::read_to_string(file).unwrap()).map_err(|why| format!("{name} {why}"))?;
    let mut words = vec!["-m".into(), file.to_str().unwrap().to_owned()];
    if header.listens {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        words.push(format!("LISTEN=http://127.0.0.1:{port}"));
    }
    let mut running = Running::start(&words);
    let mut missing = header.output;
    let mut said = String::new();
    while !missing.is_empty() || header.exit.is_some() {
        match running.lines.recv_timeout(PATIENCE) {
            Ok(line) => {
                missing.retain(|expected| !expected.is_match(&line));
                said.push_str(&line);
                said.push('\n');
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                return Err(format!("{name} hangs; it said:\n{said}"));
            }
        }
    }
    if let Some(first) = missing.first() {
        return Err(format!("{name} never said {first}, but:\n{said}"));
    }
    match header.exit {
        Some(code) if running.process.wait().unwrap().code() != Some(code) => Err(format!(
            "{name} did not end with exit code {code}; it said:\n{said}"
        )),
        _ => Ok(()),
    }
}

/// A process that ends with the test.
struct Running {
    process: Child,
    lines: mpsc::Receiver<String>,
}

impl Running {
    fn start(words: &[String]) -> Self {
        let mut process = Command::new(root().join("scripts/run"))
            .args(words)
            .env("RTCINFERENCE_PROFILE", "debug")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let (tell, lines) = mpsc::channel();
        std::thread::spawn(move || {
            output
                .split(b'\n')
                .map_while(Result::ok)
                .try_for_each(|line| tell.send(String::from_utf8_lossy(&line).into_owned()))
        });
        Self { process, lines }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs to the end; the exit status, and both outputs.
fn run(words: &[&str]) -> (ExitStatus, String) {
    let output = Command::new(root().join("scripts/run"))
        .args(words)
        .env("RTCINFERENCE_PROFILE", "debug")
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status, String::from_utf8_lossy(&said).into_owned())
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
