# Writes OUTPUT, a C file that holds the CUDA prelude INPUT as a string. Run by the build.
file(READ ${INPUT} bytes HEX)
string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${bytes}")
file(WRITE ${OUTPUT} "#include \"compiler/emit/cuda_private.h\"\n\nconst char emit_prelude[] = {${bytes}0};\n")
