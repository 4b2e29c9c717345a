//! What is left of a key in the memory of a process that has dropped it: nothing that a search over
//! every writable page finds, heap and stack.
//!
//! The process is this program once more. It stops while it holds the key, so that the search is
//! seen to find what is there, and again when it has dropped it. It does not run under the usual
//! harness, which keeps threads and buffers of its own.

use std::{
    env,
    error::Error,
    fmt::Write as _,
    fs::{self, File},
    io::{self, BufRead, BufReader, Read, Write as _},
    os::unix::fs::FileExt,
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use aes_gcm::aes::{
    Aes256,
    cipher::{Array, BlockCipherEncrypt, KeyInit},
};
use base64::{Engine, engine::general_purpose as engines};
use hkdf::Hkdf;
use sessionkit::{Entropy, Key, Keyring, OsEntropy};
use sha2::{Sha256, block_api::compress256};
use zeroize::Zeroizing;

type Result<T = (), E = Box<dyn Error>> = std::result::Result<T, E>;

/// What the child does with its key.
const WAYS: [&str; 4] = ["parsed", "from-file", "removed", "replaced"];

fn main() -> Result {
    let arguments: Vec<_> = env::args().collect();
    if let [_, way, path] = &*arguments
        && WAYS.contains(&way.as_str())
    {
        return hold_and_drop(way, Path::new(path));
    }
    nothing_of_a_dropped_key_is_found_in_memory()
}

fn nothing_of_a_dropped_key_is_found_in_memory() -> Result {
    for way in WAYS {
        for written in [Writing::Base64, Writing::UrlSafe, Writing::Hexadecimal] {
            let mut key = [0; 32];
            OsEntropy.fill(&mut key)?;
            let text = written.text(&key);
            let traces = traces(&key, &text);
            let path = env::temp_dir().join(format!("sessionkit-wiped-{}", std::process::id()));
            fs::write(&path, format!("{text}\n"))?;
            let mut holder = Holder::start(way, &path)?;

            let found = holder.search(&traces, "held")?;
            for trace in &traces {
                let is_found = found.contains(&trace.name);
                assert_eq!(
                    is_found, trace.held,
                    "{way} {written:?}, held: {}",
                    trace.name
                );
            }
            let found = holder.search(&traces, "dropped")?;
            assert!(found.is_empty(), "{way} {written:?}, dropped: {found:?}");
            holder.end()?;
            fs::remove_file(&path)?;
            println!("{way} {written:?}: {} traces, none is left", traces.len());
        }
    }
    Ok(())
}

/// The child: stops after each line that it prints, until it gets one.
fn hold_and_drop(way: &str, path: &Path) -> Result {
    let text = read(path)?;
    let key = Key::parse(str::from_utf8(&text)?.trim_end())?;
    let id = key.id();
    let keyring = match way {
        "from-file" => Keyring::from_file(path)?,
        _ => Keyring::new([key.clone()])?,
    };
    use_it(&keyring)?;
    pause("held")?;

    drop(text);
    drop(key);
    let survivor = keyring.clone();
    match way {
        "removed" => {
            survivor.rotate(Key::generate()?)?;
            survivor.remove(id)?;
        }
        "replaced" => survivor.replace([Key::generate()?])?,
        _ => drop(survivor),
    }
    if way == "removed" || way == "replaced" {
        pause("dropped")?;
        use_it(&keyring)
    } else {
        drop(keyring);
        pause("dropped")
    }
}

fn read(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut text = Zeroizing::new(vec![0; 256]);
    let len = File::open(path)?.read(&mut text)?;
    text.truncate(len);
    Ok(text)
}

fn use_it(keyring: &Keyring) -> Result {
    let payload = [7; 300];
    let mut signed = keyring.sign("purpose", "context", &payload);
    let mut sealed = keyring.seal(&OsEntropy, "purpose", "context", &payload)?;
    assert!(keyring.verify("purpose", "context", &signed).is_some());
    assert!(keyring.open("purpose", "context", &sealed).is_some());
    for value in [&mut signed, &mut sealed] {
        *value.last_mut().ok_or("a value has bytes")? ^= 1;
    }
    assert!(keyring.verify("purpose", "context", &signed).is_none());
    assert!(keyring.open("purpose", "context", &sealed).is_none());
    Ok(())
}

fn pause(state: &str) -> Result {
    println!("{state}");
    io::stdin().lock().read_line(&mut String::new())?;
    Ok(())
}

struct Holder {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Holder {
    fn start(way: &str, path: &Path) -> Result<Self> {
        let mut child = Command::new(env::current_exe()?)
            .arg(way)
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        Ok(Self {
            input: child.stdin.take().ok_or("the input is a pipe")?,
            output: BufReader::new(child.stdout.take().ok_or("the output is a pipe")?),
            child,
        })
    }

    /// The names of the traces that are in memory when the child says that it is in `state`; then
    /// lets it go on.
    fn search(&mut self, traces: &[Trace], state: &str) -> Result<Vec<&'static str>> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        assert_eq!(line.trim_end(), state);
        let memory = writable_memory(self.child.id())?;
        self.input.write_all(b"\n")?;
        let found = traces.iter().filter(|trace| trace.is_in(&memory));
        Ok(found.map(|trace| trace.name).collect())
    }

    fn end(mut self) -> Result {
        drop(self.input);
        let status = self.child.wait()?;
        assert!(status.success(), "{status}");
        Ok(())
    }
}

/// The content of every writable mapping of a process, see proc_pid_maps(5).
fn writable_memory(process: u32) -> Result<Vec<Vec<u8>>> {
    let maps = fs::read_to_string(format!("/proc/{process}/maps"))?;
    let memory = File::open(format!("/proc/{process}/mem"))?;
    let mut contents = Vec::new();
    for line in maps.lines() {
        let mut fields = line.split(' ');
        let (Some(range), Some(rights)) = (fields.next(), fields.next()) else {
            return Err(format!("not a mapping: {line}").into());
        };
        if rights.starts_with("rw") {
            let (start, end) = range.split_once('-').ok_or("a range has two ends")?;
            let start = u64::from_str_radix(start, 16)?;
            let len = u64::from_str_radix(end, 16)? - start;
            let mut content = vec![0; usize::try_from(len)?];
            memory.read_exact_at(&mut content, start)?;
            contents.push(content);
        }
    }
    assert!(
        maps.contains("[heap]") && maps.contains("[stack]"),
        "{maps}"
    );
    Ok(contents)
}

#[derive(Clone, Copy, Debug)]
enum Writing {
    Base64,
    UrlSafe,
    Hexadecimal,
}

impl Writing {
    fn text(self, key: &[u8]) -> String {
        match self {
            Self::Base64 => engines::STANDARD.encode(key),
            Self::UrlSafe => engines::URL_SAFE_NO_PAD.encode(key),
            Self::Hexadecimal => key.iter().fold(String::new(), |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            }),
        }
    }
}

/// Bytes that tell of a key. Any sixteen of them in a row do.
struct Trace {
    name: &'static str,
    bytes: Vec<u8>,
    /// Whether they are there as long as the key is in use.
    held: bool,
}

impl Trace {
    fn is_in(&self, memory: &[Vec<u8>]) -> bool {
        let (parts, _) = self.bytes.as_chunks::<16>();
        memory.iter().any(|content| {
            let first = |part: &[u8; 16]| content.windows(16).any(|window| window == part);
            parts.iter().any(first)
        })
    }
}

/// The key and everything that is computed from it alone.
fn traces(key: &[u8; 32], text: &str) -> Vec<Trace> {
    let (extracted, expand) = Hkdf::<Sha256>::extract(None, key);
    let derived = |label: &[u8]| {
        let mut bytes = [0; 32];
        expand
            .expand(label, &mut bytes)
            .expect("32 bytes are few enough");
        bytes
    };
    let signing = derived(b"sessionkit sign 1\0");
    let sealing = derived(b"sessionkit seal 1\0");
    let rounds = round_keys(&sealing);
    // Where the processor has no instructions for AES, the round keys are kept in another order.
    let in_order = has_aes();
    let mut traces = Vec::new();
    let mut add = |name, held, bytes: &[u8]| {
        traces.push(Trace {
            name,
            held,
            bytes: bytes.to_vec(),
        });
    };
    add("the text", true, text.as_bytes());
    add("the key", true, key);
    add("the extracted key", false, &extracted);
    add(
        "the inner state of the expansion",
        false,
        &hmac_state(&extracted.into(), 0x36),
    );
    add(
        "the outer state of the expansion",
        false,
        &hmac_state(&extracted.into(), 0x5c),
    );
    add("the signing key", false, &signing);
    add(
        "the padded signing key, inner",
        false,
        &signing.map(|byte| byte ^ 0x36),
    );
    add(
        "the padded signing key, outer",
        false,
        &signing.map(|byte| byte ^ 0x5c),
    );
    add(
        "the inner state of the signature",
        true,
        &hmac_state(&signing, 0x36),
    );
    add(
        "the outer state of the signature",
        true,
        &hmac_state(&signing, 0x5c),
    );
    add("the sealing key, rounds 0 and 1", in_order, &sealing);
    add("round keys 2 to 7", in_order, &rounds[2..8].concat());
    add("round keys 8 to 14", in_order, &rounds[8..].concat());
    add("the hash key of GCM", false, &hash_key(&sealing));
    add(
        "the hash key of GCM as it is kept",
        true,
        &kept_hash_key(&hash_key(&sealing)),
    );
    traces
}

fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    return std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    return false;
}

/// The state of SHA-256 (FIPS 180-4, section 5.3.3) after the padded key of HMAC.
fn hmac_state(key: &[u8; 32], pad: u8) -> Vec<u8> {
    let mut state = [
        0x6a09_e667,
        0xbb67_ae85,
        0x3c6e_f372,
        0xa54f_f53a,
        0x510e_527f,
        0x9b05_688c,
        0x1f83_d9ab,
        0x5be0_cd19,
    ];
    let mut block = [pad; 64];
    for (byte, key) in block.iter_mut().zip(key) {
        *byte ^= key;
    }
    compress256(&mut state, &[block]);
    state.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// H (NIST SP 800-38D, section 6.4).
fn hash_key(key: &[u8; 32]) -> [u8; 16] {
    let mut block = Array::from([0; 16]);
    Aes256::new(&Array::from(*key)).encrypt_block(&mut block);
    block.into()
}

/// H in the order of POLYVAL and multiplied by x (RFC 8452, appendix A).
fn kept_hash_key(key: &[u8; 16]) -> [u8; 16] {
    let value = u128::from_be_bytes(*key);
    let reduction = (1 << 127) | (1 << 126) | (1 << 121) | 1;
    let carry = if value >> 127 == 1 { reduction } else { 0 };
    ((value << 1) ^ carry).to_le_bytes()
}

/// The key schedule of AES-256 (FIPS 197, section 5.2).
fn round_keys(key: &[u8; 32]) -> [[u8; 16]; 15] {
    let sbox = sbox();
    let mut words: Vec<[u8; 4]> = key.as_chunks::<4>().0.to_vec();
    let mut constant = 1;
    for position in 8..60 {
        let mut word: [u8; 4] = words[position - 1];
        if position % 8 == 0 {
            word.rotate_left(1);
        }
        if position % 4 == 0 {
            word = word.map(|byte| sbox[usize::from(byte)]);
        }
        if position % 8 == 0 {
            word[0] ^= constant;
            constant <<= 1;
        }
        let before = words[position - 8];
        words.push(std::array::from_fn(|byte| word[byte] ^ before[byte]));
    }
    std::array::from_fn(|round| std::array::from_fn(|byte| words[4 * round + byte / 4][byte % 4]))
}

/// The substitution box (FIPS 197, section 5.1.1): inverses in GF(2^8), and an affine map.
fn sbox() -> [u8; 256] {
    let mut sbox = [0x63; 256];
    let (mut value, mut inverse) = (1_u8, 1_u8);
    loop {
        // Times three, and divided by three.
        value ^= (value << 1) ^ if value >= 0x80 { 0x1b } else { 0 };
        inverse ^= inverse << 1;
        inverse ^= inverse << 2;
        inverse ^= inverse << 4;
        if inverse >= 0x80 {
            inverse ^= 9;
        }
        let turned = (1..5).map(|places| inverse.rotate_left(places));
        sbox[usize::from(value)] = turned.fold(inverse ^ 0x63, |sum, turned| sum ^ turned);
        if value == 1 {
            return sbox;
        }
    }
}
