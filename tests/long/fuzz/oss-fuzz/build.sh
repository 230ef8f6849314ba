#!/bin/bash -eu
# Build a fuzzer for each Python target, and one of the C kernels, with their corpora and the dictionary.
pip3 install . # with the core
fuzz=tests/long/fuzz

for target in container decode lossless arrays sets models pillow images; do
    cp $fuzz/guided.py $fuzz/fuzz_$target.py
    compile_python_fuzzer $fuzz/fuzz_$target.py --add-data "tests/golden:tests/golden" --paths tests
    cp $fuzz/container.dict "$OUT/fuzz_$target.dict"
    corpus=$fuzz/corpus$([ $target = container ] || echo _$target)
    if [ -d "$corpus" ]; then zip -qj "$OUT/fuzz_${target}_seed_corpus.zip" "$corpus"/*; fi
done

python3 - > tables.h <<'END'
from vaecodec.native.reference.lossless_bits import tables
values = tables().tolist()
print(f"static const uint16_t LOSSLESS_TABLES[{len(values)}] = {{{','.join(map(str, values))}}};")
END
$CC $CFLAGS -std=gnu11 -ffp-contract=off -DVC_KIND=plain -DVC_PLAIN -I. -Ivaecodec/native/src \
    -c $fuzz/native_target.c -o native_target.o
$CXX $CXXFLAGS native_target.o $LIB_FUZZING_ENGINE -o "$OUT/fuzz_native"
if [ -d $fuzz/native_corpus ]; then zip -qj "$OUT/fuzz_native_seed_corpus.zip" $fuzz/native_corpus/*; fi
