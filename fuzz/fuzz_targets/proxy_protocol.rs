#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| wsbroker_engine::fuzzing::proxy_protocol(data));
