"""Money and disputes on a chain (docs/settlement.md).

contracts/   Solidity: the settlement, the referee of the dispute game, what they are made of
parameters   amounts, shares and times, and the floors that they must keep (docs/incentives.md)
simulation   settlements played many times: payoffs and populations
plot         their picture
"""
