//! Every description in pipelines/ does what its header says, run as a user runs it: by `scripts/run -m`.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use regex::Regex;

/// How long a description may take until it has shown what it promises, and its server until it listens.
const PATIENCE: Duration = Duration::from_secs(55);

/// Descriptions run side by side.
const ANY_PORT: &str = "LISTEN=http://127.0.0.1:0";

/// A test for each description.
macro_rules! descriptions {
    ($($name:ident)*) => {
        $(#[test]
        fn $name() {
            let file = format!("{}.launch", stringify!($name).replace('_', "-"));
            if let Err(wrong) = check(&root().join("pipelines").join(file)) {
                panic!("{wrong}");
            }
        })*

        const TESTED: &[&str] = &[$(stringify!($name)),*];
    };
}

descriptions! {
    annotate
    ball
    broadcast
    call_fastrtc
    call_ours
    detect
    echo
    echo_pads
    file
    level
    level_pair
    lifecycle
    neighbour
    send_file
    visitor
    webrtcbin
}

#[test]
fn every_description_has_a_test() {
    let mut there: Vec<String> = fs::read_dir(root().join("pipelines"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| Some(name.strip_suffix(".launch")?.replace('-', "_")))
        .collect();
    there.sort();
    assert_eq!(there, TESTED);
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
    /// It listens, at a port of its own.
    listens: bool,
    /// Another description, which listens, that it calls.
    beside: Option<String>,
    /// What it writes, below a folder that goes with the test.
    writes: Vec<String>,
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
            beside: text
                .lines()
                .find_map(|line| line.strip_prefix("# beside "))
                .map(str::to_owned),
            writes: ["OUTPUT", "RESULTS"]
                .into_iter()
                .filter(|key| text.contains(&format!("\n# var {key}=")))
                .map(str::to_owned)
                .collect(),
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
        words.push(ANY_PORT.into());
    }
    let written = tempfile::tempdir().unwrap();
    for key in &header.writes {
        words.push(format!("{key}={}", written.path().join(key).display()));
    }
    let server = header.beside.as_ref().map(|beside| {
        let path = root().join("pipelines").join(beside);
        Running::start(&["-m".into(), path.display().to_string(), ANY_PORT.into()])
    });
    if let Some(server) = &server {
        let uri = server.listens_at();
        let uri = uri.ok_or_else(|| format!("{name}: its server does not listen"))?;
        words.push(format!("SERVER={uri}"));
    }
    let mut running = Running::start(&words);
    let mut missing = header.output;
    let mut said = String::new();
    let done_by = Instant::now() + PATIENCE;
    while !missing.is_empty() || header.exit.is_some() {
        match running.line(done_by) {
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
    for key in &header.writes {
        let length = fs::metadata(written.path().join(key)).map_or(0, |file| file.len());
        if length == 0 {
            return Err(format!("{name} wrote no {key}; it said:\n{said}"));
        }
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

    /// Where it says that it listens.
    fn listens_at(&self) -> Option<String> {
        let uri = Regex::new(r#"rtc-listening, uri=\(string\)"?(http://[0-9.:]+)"#).unwrap();
        let by = Instant::now() + PATIENCE;
        loop {
            let line = self.line(by).ok()?;
            if let Some(found) = uri.captures(&line) {
                return Some(found[1].to_owned());
            }
        }
    }

    /// The next line it says, which is to come by then.
    fn line(&self, by: Instant) -> Result<String, mpsc::RecvTimeoutError> {
        let left = by.saturating_duration_since(Instant::now());
        self.lines.recv_timeout(left)
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
