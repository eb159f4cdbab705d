#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| latlas_fuzz::parsers::program(text));
