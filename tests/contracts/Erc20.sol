// SPDX-License-Identifier: Apache-2.0
pragma solidity 0.8.37;

/// @title A token, for tests: ERC-20, no more, and as strict with allowances as deployed ones are.
/// @dev https://eips.ethereum.org/EIPS/eip-20
contract Erc20 {
    string public constant name = "Test token";
    string public constant symbol = "TEST";
    uint8 public constant decimals = 18;
    uint256 public immutable totalSupply;
    mapping(address => uint256) public balanceOf;
    mapping(address => mapping(address => uint256)) public allowance;

    event Transfer(address indexed from, address indexed to, uint256 value);
    event Approval(address indexed owner, address indexed spender, uint256 value);

    /// @notice An allowance goes from one amount to another by way of zero only.
    error NotFromOneAmountToAnother();

    constructor(uint256 supply) {
        totalSupply = supply;
        balanceOf[msg.sender] = supply;
        emit Transfer(address(0), msg.sender, supply);
    }

    function approve(address spender, uint256 value) external returns (bool) {
        if (value != 0 && allowance[msg.sender][spender] != 0) revert NotFromOneAmountToAnother();
        allowance[msg.sender][spender] = value;
        emit Approval(msg.sender, spender, value);
        return true;
    }

    function transfer(address to, uint256 value) external returns (bool) {
        return _transfer(msg.sender, to, value);
    }

    function transferFrom(address from, address to, uint256 value) external returns (bool) {
        allowance[from][msg.sender] -= value;
        return _transfer(from, to, value);
    }

    function _transfer(address from, address to, uint256 value) private returns (bool) {
        balanceOf[from] -= value;
        balanceOf[to] += value;
        emit Transfer(from, to, value);
        return true;
    }
}
