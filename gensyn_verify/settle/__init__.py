"""Money and disputes on a chain (docs/settlement.md). Imports web3 only where it is used.

contracts/   Solidity: the settlement, the referee of the dispute game, what they are made of
artifacts/   the same, compiled
chain        a chain: inside of this process, or by JSON-RPC; following events
wallet       keys, and sending once
settlement   the contract's messages and what it says
gas          what a program's header costs to prove: whether a task of it can be disputed
roles        solver, verifier, challenger: what each says when
parameters   amounts, shares and times, and the floors that they must keep (docs/incentives.md)
simulation   settlements played many times: payoffs and populations
plot         their picture
"""
