# cmake -DIN=x.spv -DOUT=x.inc -P: the module's 32-bit words as C++ array elements.
file(READ "${IN}" hex HEX)
string(REGEX REPLACE "(..)(..)(..)(..)" "0x\\4\\3\\2\\1," words "${hex}")
string(REGEX REPLACE "((0x[0-9a-f]+,)(0x[0-9a-f]+,)(0x[0-9a-f]+,)(0x[0-9a-f]+,)(0x[0-9a-f]+,)(0x[0-9a-f]+,)(0x[0-9a-f]+,)(0x[0-9a-f]+,))" "\\1\n" words "${words}")
file(WRITE "${OUT}" "${words}\n")
