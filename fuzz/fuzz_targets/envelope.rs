#![no_main]
#![expect(missing_docs, reason = "the property is documented")]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    sessionkit_fuzz::envelope(input);
});
