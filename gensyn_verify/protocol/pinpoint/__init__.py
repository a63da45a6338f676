"""The dispute game of docs/dispute.md: from two runs that differ down to one scalar operation.

ranges      how a tree is walked: 16 ranges below a node, and their fold
leaves      what stands below the trace: inputs, nodes, the source of a data input
sequence    THE DEFINITION of what an element is computed by, operation by operation
abi         the encoding of positions and moves
position    the referee: position x move -> position, a pure function
trace       a step run once more with every value kept
players     solver and challenger: a strategy each over a side
side        what one party has: task, own run, trace and sequence
game        the game played out
descent     two runs, and where they part; picture: as text and as a drawing
"""
