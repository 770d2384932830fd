#include "textflag.h"

// func int80(call uintptr, args *[6]uintptr) (result int32)
TEXT ·int80(SB), NOSPLIT, $8-20
	MOVQ call+0(FP), AX
	MOVQ args+8(FP), R12
	MOVQ BP, R13
	MOVQ 0(R12), BX
	MOVQ 8(R12), CX
	MOVQ 16(R12), DX
	MOVQ 24(R12), SI
	MOVQ 32(R12), DI
	MOVQ 40(R12), BP
	INT  $0x80
	MOVQ R13, BP
	MOVL AX, result+16(FP)
	RET
