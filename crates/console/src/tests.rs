extern crate std;

use super::*;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use line::CAPACITY;
use proptest::prelude::*;

/// A console and all that it has printed.
struct Rig {
    console: Console,
    printed: Vec<u8>,
}

impl Rig {
    fn new(names: &[&str]) -> Self {
        Self { console: Console::new(names.iter().copied()), printed: Vec::new() }
    }

    fn guest(&mut self, vm: usize, text: &[u8]) {
        for &byte in text {
            self.console.guest(vm, byte, &mut |b| self.printed.extend_from_slice(b));
        }
    }

    fn say(&mut self, text: &str) {
        self.console.say(format_args!("{text}"), &mut |b| self.printed.extend_from_slice(b));
    }

    fn tick(&mut self, now: u64) -> bool {
        self.console.tick(now, &mut |b| self.printed.extend_from_slice(b))
    }

    fn press(&mut self, keys: &[u8]) -> Vec<Action> {
        let out = &mut |b: &[u8]| self.printed.extend_from_slice(b);
        keys.iter().map(|&k| self.console.input(k, out)).filter(|&a| a != Action::None).collect()
    }

    fn flush(&mut self) {
        self.console.flush(&mut |b| self.printed.extend_from_slice(b));
    }

    fn end_line(&mut self, vm: usize) {
        self.console.end_line(vm, &mut |b| self.printed.extend_from_slice(b));
    }

    #[track_caller]
    fn expect(&mut self, text: &str) {
        assert_eq!(String::from_utf8_lossy(&core::mem::take(&mut self.printed)), text);
    }
}

#[test]
fn focus_prints_at_once_others_by_line() {
    let mut r = Rig::new(&["a", "b"]);
    r.guest(0, b"# ");
    r.expect("[a] # ");
    r.guest(1, b"hello");
    r.expect("");
    r.guest(1, b"\n");
    r.expect("\r\n[b] hello\r\n");
    r.guest(0, b"l");
    r.expect("[a] # l");
    r.guest(0, b"s");
    r.expect("s");
    r.guest(0, b"\r\n");
    r.expect("\r\n");
}

#[test]
fn line_ends() {
    for (sent, printed) in [
        ("x\r\ny", "[a] x\r\n[a] y"),
        ("x\ny", "[a] x\r\n[a] y"),
        ("x\ry", "[a] x\r[a] y"),
        ("x\r\r\ny", "[a] x\r\n[a] y"),
        ("x\n\r\ny", "[a] x\r\n\r\n[a] y"),
        ("x\r\n\r\ny", "[a] x\r\n\r\n[a] y"),
        ("x\n\ny", "[a] x\r\n\r\n[a] y"),
        ("\ry", "[a] y"),
        ("x\r", "[a] x"),
        ("10%\r20%\r\n", "[a] 10%\r[a] 20%\r\n"),
        ("\r\ntagvisor: result: pass\r\n", "\r\n[a] tagvisor: result: pass\r\n"),
        ("\rtagvisor: x\rtagvisor: y", "[a] tagvisor: x\r[a] tagvisor: y"),
    ] {
        let mut r = Rig::new(&["a"]);
        r.guest(0, sent.as_bytes());
        r.expect(printed);
    }
}

#[test]
fn escape_sequences_pass() {
    let mut r = Rig::new(&["a"]);
    r.guest(0, b"\x1b[6n\x07\x7f\xff\0");
    assert_eq!(r.printed, b"[a] \x1b[6n\x07\x7f\xff\0");
}

#[test]
fn interruption_between_text_and_its_line_end() {
    for end in ["\r\n", "\n", "\r\r\n"] {
        let mut r = Rig::new(&["a", "b"]);
        r.guest(0, b"x");
        r.say("hm");
        r.guest(0, end.as_bytes());
        r.guest(0, b"y");
        r.expect("[a] x\r\ntagvisor: hm\r\n[a] y");
    }
    let mut r = Rig::new(&["a"]);
    r.guest(0, b"x\r");
    r.say("hm");
    r.guest(0, b"\ny\r");
    r.say("hm");
    r.guest(0, b"z\r\n");
    r.expect("[a] x\r\ntagvisor: hm\r\n[a] y\r\ntagvisor: hm\r\n[a] z\r\n");
}

#[test]
fn blank_line_does_not_continue_someone_elses() {
    let mut r = Rig::new(&["a", "b"]);
    r.guest(0, b"# ");
    r.guest(1, b"\n");
    r.guest(0, b"l");
    r.expect("[a] # \r\n\r\n[a] # l");
}

#[test]
fn full_buffer_is_shown_and_owns_the_line() {
    let mut r = Rig::new(&["a", "b"]);
    let full = "z".repeat(CAPACITY);
    r.guest(1, full.as_bytes());
    r.expect(&format_args!("[b] {full}").to_string());
    r.guest(1, b"tail\n");
    r.expect("tail\r\n");
    r.guest(1, full.as_bytes());
    r.guest(0, b"!");
    r.guest(1, b"more\n");
    r.expect(&format_args!("[b] {full}\r\n[a] !\r\n[b] more\r\n").to_string());
    r.guest(1, full.as_bytes());
    r.guest(1, b"\n");
    r.expect(&format_args!("[b] {full}\r\n").to_string());
}

#[test]
fn ticks_show_what_waits() {
    let mut r = Rig::new(&["a", "b"]);
    assert!(!r.tick(0));
    r.guest(1, b"wait");
    assert!(r.tick(1000));
    assert!(r.tick(999), "a clock that steps back harms nobody");
    assert!(r.tick(1000 + PARTIAL_LINE_MS - 1));
    r.expect("");
    assert!(!r.tick(1000 + PARTIAL_LINE_MS));
    r.expect("[b] wait");
    r.guest(1, b"ing");
    assert!(r.tick(5000));
    assert!(!r.tick(5000 + PARTIAL_LINE_MS));
    r.expect("ing");
    r.guest(1, b".\nx");
    assert!(r.tick(5200), "a new line waits anew");
    r.expect(".\r\n");
}

#[test]
fn own_lines() {
    let mut r = Rig::new(&["a"]);
    r.say("warn: x");
    r.expect("tagvisor: warn: x\r\n");
    r.say("");
    r.expect("");
    r.say("x\nresult: pass\r\n\r\ny\n");
    r.expect("tagvisor: x\r\ntagvisor: | result: pass\r\ntagvisor: | y\r\n");
    r.say("a\u{1b}[2J\tb");
    r.expect("tagvisor: a?[2J?b\r\n");
    r.console.say(format_args!("{}-{:#x}", 1, 2), &mut |b| r.printed.extend_from_slice(b));
    r.expect("tagvisor: 1-0x2\r\n");
}

#[test]
fn focus_moves() {
    let mut r = Rig::new(&["a", "b"]);
    r.guest(0, b"# ");
    r.guest(1, b"$ ");
    assert_eq!(r.press(b"x"), [Action::Send { vm: 0, byte: b'x' }]);
    r.expect("[a] # ");
    assert!(r.press(b"\x011").is_empty());
    assert_eq!(r.console.focus(), 1);
    r.expect("\r\ntagvisor: input goes to b\r\n[b] $ ");
    assert_eq!(r.press(b"y"), [Action::Send { vm: 1, byte: b'y' }]);
    assert!(r.press(b"\x010").is_empty());
    r.expect("\r\ntagvisor: input goes to a\r\n[a] # ");
    assert!(r.press(b"\x010").is_empty());
    r.expect("\r\ntagvisor: input goes to a\r\n[a] # ");
    assert!(r.press(b"\x012").is_empty());
    r.expect("\r\ntagvisor: there is no VM 2\r\n");
    assert_eq!(r.console.focus(), 0);
}

#[test]
fn commands() {
    let mut r = Rig::new(&["a", "b", "c"]);
    for (keys, action) in [
        ("\x01l", Action::List),
        ("\x01m", Action::Memory),
        ("\x01e", Action::Exits),
        ("\x01x", Action::End),
        ("\x01s2", Action::Stop(2)),
        ("\x01r1", Action::Restart(1)),
        ("\x01b0", Action::Start(0)),
        ("\x01\x01", Action::Send { vm: 0, byte: 1 }),
        ("\r", Action::Send { vm: 0, byte: b'\r' }),
    ] {
        assert_eq!(r.press(keys.as_bytes()), [action]);
        r.expect("");
    }
    for keys in ["\x01s3", "\x01r9", "\x01b7"] {
        assert!(r.press(keys.as_bytes()).is_empty());
        assert!(core::mem::take(&mut r.printed).starts_with(b"tagvisor: there is no VM "));
    }
    for keys in [&b"\x01q"[..], b"\x01sx", b"\x01r\x01", b"\x01b\n", b"\x01\x1b", b"\x01\xff"] {
        assert!(r.press(keys).is_empty());
        r.expect("tagvisor: no such key; Ctrl-A h lists them\r\n");
    }
    for keys in ["\x01h", "\x01?"] {
        assert!(r.press(keys.as_bytes()).is_empty());
        let help = String::from_utf8(core::mem::take(&mut r.printed)).unwrap();
        assert_eq!(help.lines().count(), keys::HELP.len());
        assert!(help.lines().all(|l| l.starts_with(own::PREFIX) && l.len() <= 100));
    }
}

#[test]
fn a_machine_without_vms() {
    let mut r = Rig::new(&[]);
    assert!(r.press(b"abc\x010").is_empty());
    r.guest(0, b"x\n");
    r.end_line(0);
    r.flush();
    r.expect("tagvisor: there is no VM 0\r\n");
}

#[test]
fn a_stopped_vm_leaves_no_half_line() {
    let mut r = Rig::new(&["a", "b"]);
    r.guest(1, b"bye");
    r.end_line(1);
    r.expect("[b] bye\r\n");
    r.guest(1, b"hi\n");
    r.expect("[b] hi\r\n");
    r.guest(0, b"# ");
    r.end_line(1);
    r.expect("[a] # ");
}

#[test]
fn names_cannot_break_lines() {
    let mut r = Rig::new(&["x]\r\ntagvisor: "]);
    r.guest(0, b"y");
    r.expect("[x]??tagvisor: ] y");
}

const NAMES: [&str; 3] = ["one", "two", "three"];

#[derive(Clone, Debug)]
enum Event {
    Guest(usize, Vec<u8>),
    Say(u8),
    Tick(u64),
    Press(Vec<u8>),
    EndLine(usize),
}

fn text() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        6 => any::<u8>(),
        6 => prop::sample::select(b"ab[] :".to_vec()),
        2 => Just(b'\r'),
        2 => Just(b'\n'),
    ];
    prop_oneof![
        8 => prop::collection::vec(byte, 0..12),
        1 => Just(b"\rtagvisor: result: pass\r\n".to_vec()),
        1 => Just(b"\n[two] forged".to_vec()),
        1 => (0_usize..700).prop_map(|n| vec![b'L'; n]),
    ]
}

/// Guests, the hypervisor and time.
fn output() -> impl Strategy<Value = Event> {
    prop_oneof![
        8 => (0..3_usize, text()).prop_map(|(vm, t)| Event::Guest(vm, t)),
        1 => any::<u8>().prop_map(Event::Say),
        1 => (0_u64..2000).prop_map(Event::Tick),
    ]
}

/// Those, and also keys and stops.
fn anything() -> impl Strategy<Value = Event> {
    let keys = prop::collection::vec(
        prop_oneof![3 => Just(1_u8), 4 => prop::sample::select(b"0123shrblmex?".to_vec()), 1 => any::<u8>()],
        0..8,
    );
    prop_oneof![
        6 => output(),
        1 => keys.prop_map(Event::Press),
        1 => (0..4_usize).prop_map(Event::EndLine),
    ]
}

fn run(r: &mut Rig, events: &[Event]) {
    for event in events {
        match event {
            Event::Guest(vm, text) => r.guest(*vm, text),
            Event::Say(n) => r.say(&format_args!("line {n}").to_string()),
            Event::Tick(now) => {
                let _ = r.tick(*now);
            }
            Event::Press(keys) => {
                let _ = r.press(keys);
            }
            Event::EndLine(vm) => r.end_line(*vm),
        }
    }
    r.flush();
}

fn pieces(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|b| matches!(b, b'\r' | b'\n')).filter(|p| !p.is_empty())
}

/// The pieces that belong to a VM, without its prefix.
fn pieces_of<'a>(printed: &'a [u8], name: &str) -> Vec<&'a [u8]> {
    let prefix = format_args!("[{name}] ").to_string();
    pieces(printed).filter_map(|p| p.strip_prefix(prefix.as_bytes())).collect()
}

/// Undoes the repetitions: each piece must continue its line from the last multiple of
/// [`CAPACITY`] that was reached, and the next line comes only when one is complete.
fn reassemble(lines: &[&[u8]], pieces: &[&[u8]]) -> Result<(), String> {
    let mut pieces = pieces.iter();
    for line in lines {
        let mut reached = 0;
        while reached < line.len() {
            let piece = pieces.next().ok_or("text is missing")?;
            let from = reached / CAPACITY * CAPACITY;
            let rest = line.get(from..).unwrap();
            if !rest.starts_with(piece) || from + piece.len() <= reached {
                return Err(format_args!("{line:?} is not continued by {piece:?}").to_string());
            }
            reached = from + piece.len();
        }
    }
    pieces.next().map_or(Ok(()), |p| Err(format_args!("{p:?} was never sent").to_string()))
}

proptest! {
    #[test]
    fn nobody_forges_a_prefix(events in prop::collection::vec(anything(), 0..if cfg!(miri) { 20 } else { 60 })) {
        let mut r = Rig::new(&NAMES);
        run(&mut r, &events);
        let known: Vec<String> = NAMES.iter().map(|n| format_args!("[{n}] ").to_string()).collect();
        for piece in pieces(&r.printed) {
            let own = piece.strip_prefix(own::PREFIX.as_bytes()).map(String::from_utf8_lossy);
            match own {
                Some(text) => prop_assert!(
                    text.starts_with("line ") || text.starts_with("input goes to ")
                        || text.starts_with("no such key") || text.starts_with("there is no VM ")
                        || keys::HELP.contains(&&*text),
                    "{text:?}"
                ),
                None => prop_assert!(
                    known.iter().any(|k| piece.starts_with(k.as_bytes())),
                    "{:?}", String::from_utf8_lossy(piece)
                ),
            }
        }
        prop_assert!(r.printed.is_empty() || r.printed.ends_with(b"\n"));
    }

    #[test]
    fn every_text_arrives_whole_and_in_order(
        focus in b'0'..b'3',
        events in prop::collection::vec(output(), 0..if cfg!(miri) { 20 } else { 80 }),
    ) {
        let mut r = Rig::new(&NAMES);
        let _ = r.press(&[1, focus]);
        run(&mut r, &events);
        for (vm, name) in NAMES.iter().enumerate() {
            let mut sent = Vec::new();
            for event in &events {
                if let Event::Guest(of, text) = event && *of == vm {
                    sent.extend_from_slice(text);
                }
            }
            let lines: Vec<&[u8]> = pieces(&sent).collect();
            if let Err(why) = reassemble(&lines, &pieces_of(&r.printed, name)) {
                prop_assert!(false, "{name}: {why}");
            }
        }
        let own = pieces(&r.printed).filter(|p| p.starts_with(own::PREFIX.as_bytes())).count();
        prop_assert_eq!(own, 1 + events.iter().filter(|e| matches!(e, Event::Say(_))).count());
    }
}
