#include "textflag.h"

// func rawVfork(args *cloneArgs, size uintptr) uintptr
//
// The child goes on with this stack and overwrites what is on it; the return
// address is in a register (LR) all the time.
TEXT ·rawVfork(SB),NOSPLIT|NOFRAME,$0-24
	MOVD	args+0(FP), R0
	MOVD	size+8(FP), R1
	MOVD	$435, R8 // clone3
	SVC
	MOVD	R0, ret+16(FP)
	RET

// func rawSyscall(number, a1, a2, a3, a4 uintptr) uintptr
TEXT ·rawSyscall(SB),NOSPLIT|NOFRAME,$0-48
	MOVD	number+0(FP), R8
	MOVD	a1+8(FP), R0
	MOVD	a2+16(FP), R1
	MOVD	a3+24(FP), R2
	MOVD	a4+32(FP), R3
	MOVD	$0, R4
	SVC
	MOVD	R0, ret+40(FP)
	RET
